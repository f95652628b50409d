"""How the segments of a journal hang together: each names where its predecessor ends for good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from batchrunner.store.framing import (
    HEADER_BYTES,
    START,
    End,
    Header,
    Scan,
    damage,
    scan,
    torn_header,
    unpack_header,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Segments(Protocol):
    """Where the bytes of a journal's segments come from."""

    run_id: str

    def numbers(self) -> Sequence[int]:
        """The segments that exist, oldest first."""

    def read(self, number: int, size: int = -1) -> bytes:
        """The first `size` bytes of a segment, or all of it. Raises FileNotFoundError."""

    def where(self, number: int) -> str:
        """What messages call a segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A segment's records that count, for good: the sequences `after` + 1 to `end.sequence`."""

    end: End
    after: int
    epoch: int
    payloads: tuple[bytes, ...] | None = field(default=None, repr=False, compare=False)
    """The records, where whoever wrote them still has them."""

    @property
    def outcomes(self) -> int:
        return self.end.sequence - self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a journal holds beyond the last part, oldest first. The next segment goes on from `tail`."""

    closed: tuple[Closed, ...]
    tail: End
    torn_bytes: int


def survey(segments: Segments, *, after: int) -> Survey:
    """What counts beyond sequence `after`. Raises RunError when it cannot be what was written."""
    torn_bytes = 0
    for number in reversed(segments.numbers()):
        data = segments.read(number)
        if not torn_header(data):
            break
        torn_bytes += len(data)
    else:
        return Survey(closed=(), tail=START, torn_bytes=torn_bytes)
    header = _header(segments, number, data)
    last = scan(data, header, where=segments.where(number))
    closed = [_closed(last.end, header), *_predecessors(segments, header, after)]
    return Survey(
        closed=tuple(one for one in reversed(closed) if one.outcomes and one.end.sequence > after),
        tail=last.end,
        torn_bytes=torn_bytes + last.torn_bytes,
    )


def payloads_of(segments: Segments, closed: Closed) -> Sequence[bytes | memoryview]:
    """The records of a closed segment, from memory or from its file."""
    return load(segments, closed).payloads if closed.payloads is None else closed.payloads


def load(segments: Segments, closed: Closed) -> Scan:
    """The records of a closed segment, from its file."""
    number = closed.end.segment
    data = segments.read(number)
    return scan(data, _header(segments, number, data), where=segments.where(number), end=closed.end)


def _predecessors(segments: Segments, header: Header, after: int) -> list[Closed]:
    """The segments in front of this header's that hold something beyond `after`, newest first."""
    found = []
    while header.before.sequence > after:
        end = header.before
        if end.segment not in segments.numbers():
            raise damage(segments.where(end.segment), 0, f"missing; outcomes up to {end.sequence} were in it")
        header = _header(segments, end.segment, segments.read(end.segment, HEADER_BYTES))
        found.append(_closed(end, header))
    return found


def _header(segments: Segments, number: int, data: bytes) -> Header:
    where = segments.where(number)
    header = unpack_header(data, run_id=segments.run_id, segment=number, where=where)
    if header.before.segment >= number:
        raise damage(where, 0, f"its predecessor cannot be segment {header.before.segment}")
    return header


def _closed(end: End, header: Header) -> Closed:
    return Closed(end=end, after=header.before.sequence, epoch=header.epoch)
