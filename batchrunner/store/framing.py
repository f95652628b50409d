"""The journal's bytes: a segment is a header and numbered, checksummed records.

Checksums are seeded with the run and the segment, so that a stale or foreign record cannot pass.
Reading gives an exact prefix of what was written, or a refusal; never a wrong record.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"\x89brlog\r\n"
VERSION = 1
MARKER = b"\xff\xb5\xfe\xc1"
"""Begins every record. Payloads are UTF-8, where these bytes cannot occur."""

_HEADER = struct.Struct("<8sI16sQQQQQ")
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<4sIIQ")
_NUMBERS = struct.Struct("<IQ")

HEADER_BYTES = _HEADER.size + _CHECKSUM.size
RECORD_BYTES = _RECORD.size

WAY_OUT = "restore it from a backup, or run again with --salvage: what cannot be read is asked again"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How far a segment counts: its number, its last valid sequence, the bytes up to there."""

    segment: int
    sequence: int
    length: int


START = End(segment=0, sequence=0, length=0)
"""What the very first segment names as its predecessor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself. `before` is where the previous one ends for good."""

    run_id: str
    segment: int
    epoch: int
    before: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The valid records of one segment, in order, and the torn bytes behind them."""

    payloads: list[memoryview]
    end: End
    torn_bytes: int


def pack_header(header: Header) -> bytes:
    """The first bytes of a segment."""
    before = header.before
    numbers = (header.segment, header.epoch, before.segment, before.sequence, before.length)
    packed = _HEADER.pack(MAGIC, VERSION, bytes.fromhex(header.run_id), *numbers)
    return packed + _CHECKSUM.pack(zlib.crc32(packed))


def pack_records(payloads: Iterable[bytes], *, run_id: str, segment: int, after: int) -> bytes:
    """Records for `payloads`, numbered from `after` + 1."""
    seed, numbers, record, crc32 = _seed(run_id, segment), _NUMBERS.pack, _RECORD.pack, zlib.crc32
    pieces: list[bytes] = []
    for sequence, payload in enumerate(payloads, after + 1):
        # `_checksum`, spelled out: this is done for every outcome.
        checksum = crc32(payload, crc32(numbers(len(payload), sequence), seed))
        pieces += (record(MARKER, len(payload), checksum, sequence), payload)
    return b"".join(pieces)


def torn_header(data: bytes) -> bool:
    """Whether a file holds nothing but the beginning of a header, or the zeros of a power cut."""
    return len(data) < HEADER_BYTES or not data.strip(b"\0")


def unpack_header(data: bytes, *, run_id: str, segment: int, where: str) -> Header:
    """Read a segment's header. Raises RunError unless it is this run's and this segment's."""
    if len(data) < HEADER_BYTES:
        raise damage(where, len(data), "the file ends inside its header")
    magic, version, owner, number, epoch, *before = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise damage(where, 0, "not a journal segment")
    if version != VERSION:
        raise RunError(f"{where}: unknown format version {version}; use the version of batchrunner that wrote it")
    if (zlib.crc32(data[: _HEADER.size]),) != _CHECKSUM.unpack_from(data, _HEADER.size):
        raise damage(where, 0, "damaged header")
    if (owner.hex(), number) != (run_id, segment):
        raise damage(where, 0, f"this is segment {number} of run {owner.hex()}, not segment {segment} of run {run_id}")
    end = End(segment=before[0], sequence=before[1], length=before[2])
    return Header(run_id=run_id, segment=segment, epoch=epoch, before=end)


def scan(data: bytes, header: Header, *, where: str, end: End | None = None) -> Scan:
    """Read a segment's records.

    With `end`, as its successor names it, the segment must hold exactly what is named there. Without,
    it is the last one: a bad record with nothing valid behind it is a torn tail and cut; with a valid
    one behind it, and for a gap in the sequence, RunError.
    """
    if end is not None and len(data) < end.length:
        raise damage(where, len(data), f"the file ends early, {end.length} bytes are known to be valid")
    limit = len(data) if end is None else end.length
    seed = _seed(header.run_id, header.segment)
    payloads, offset, sequence = _valid_records(data[:limit], header.before.sequence, seed, where)
    found = End(segment=header.segment, sequence=sequence, length=offset)
    if end is not None and found != end:
        raise damage(where, offset, f"damaged record; outcomes up to {end.sequence} are known to be valid")
    if end is None and _next_valid(data, offset, seed) is not None:
        raise damage(where, offset, "damaged record with valid ones behind it")
    return Scan(payloads=payloads, end=found, torn_bytes=limit - offset)


def salvage_records(data: bytes, *, run_id: str, segment: int) -> Iterator[tuple[int, bytes]]:
    """Every record of a damaged segment that can be read, with its sequence, wherever it lies."""
    view, seed, offset = memoryview(data), _seed(run_id, segment), 0
    while (found := _next_valid(data, offset, seed)) is not None:
        record = _record_at(view, found, seed)
        assert record is not None
        sequence, payload = record
        yield sequence, bytes(payload)
        offset = found + RECORD_BYTES + len(payload)


def salvage_epoch(data: bytes) -> int | None:
    """The epoch that a segment's header names; None where the header is damaged."""
    whole = len(data) >= HEADER_BYTES
    if not whole or (zlib.crc32(data[: _HEADER.size]),) != _CHECKSUM.unpack_from(data, _HEADER.size):
        return None
    return int(_HEADER.unpack_from(data)[4])


def _valid_records(data: bytes, after: int, seed: int, where: str) -> tuple[list[memoryview], int, int]:
    view, payloads, offset, sequence = memoryview(data), [], HEADER_BYTES, after
    while (record := _record_at(view, offset, seed)) is not None:
        found, payload = record
        if found != sequence + 1:
            raise damage(where, offset, f"outcome {found} where {sequence + 1} was expected")
        payloads.append(payload)
        offset += RECORD_BYTES + len(payload)
        sequence = found
    return payloads, offset, sequence


def _record_at(view: memoryview, offset: int, seed: int) -> tuple[int, memoryview] | None:
    start = offset + RECORD_BYTES
    if start > len(view):
        return None
    marker, length, checksum, sequence = _RECORD.unpack_from(view, offset)
    payload = view[start : start + length]
    if marker != MARKER or len(payload) < length or _checksum(payload, sequence, seed) != checksum:
        return None
    return sequence, payload


def _next_valid(data: bytes, offset: int, seed: int) -> int | None:
    view = memoryview(data)
    while (offset := data.find(MARKER, offset)) >= 0:
        if _record_at(view, offset, seed) is not None:
            return offset
        offset += 1
    return None


def _seed(run_id: str, segment: int) -> int:
    return zlib.crc32(bytes.fromhex(run_id) + segment.to_bytes(8, "little"))


def _checksum(payload: bytes | memoryview, sequence: int, seed: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_NUMBERS.pack(len(payload), sequence), seed))


def damage(where: str, offset: int, what: str) -> RunError:
    """The refusal of a journal that cannot be what was written."""
    return RunError(f"{where} at byte {offset}: {what}; {WAY_OUT}")
