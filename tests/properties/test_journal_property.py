"""Whatever happens to a journal's bytes: an exact prefix of what was written, or a refusal."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.errors import RunError
from batchrunner.store.chain import load, survey
from batchrunner.store.framing import HEADER_BYTES, START, WAY_OUT, End, Header, pack_header, pack_records

RUN, OTHER_RUN = "0a" * 16, "0b" * 16


@dataclass
class Memory:
    """A journal's segments, held in memory."""

    files: dict[int, bytes] = field(default_factory=dict)
    run_id: str = RUN

    def numbers(self) -> list[int]:
        return sorted(self.files)

    def read(self, number: int, size: int = -1) -> bytes:
        return self.files[number][: None if size < 0 else size]

    def where(self, number: int) -> str:
        return f"journal/{number:06d}.log"


@dataclass
class Written:
    """A journal as it was written: what counts, in order, and its files."""

    truth: list[bytes]
    memory: Memory


def payload(sequence: int, size: int = 0) -> bytes:
    return b'{"n":%d,"pad":"%s"}' % (sequence, b"x" * size)


def write(sizes: list[int], *, run_id: str = RUN, abandoned: int = 0, size: int = 0) -> Written:
    """Segments of so many records each.

    Behind the valid end of all but the last: up to `abandoned` records that the next one repeats, and a torn one.
    """
    truth: list[bytes] = []
    memory, before = Memory(run_id=run_id), START
    for number, count in enumerate(sizes, 1):
        new = [payload(before.sequence + i + 1, size) for i in range(count)]
        header = pack_header(Header(run_id=run_id, segment=number, epoch=1, before=before))
        data = header + pack_records(new, run_id=run_id, segment=number, after=before.sequence)
        before = End(segment=number, sequence=before.sequence + count, length=len(data))
        if number < len(sizes):
            again = [payload(before.sequence + i + 1, size) for i in range(min(abandoned, sizes[number]))]
            data += pack_records([*again, b"{}"], run_id=run_id, segment=number, after=before.sequence)[:-1]
        memory.files[number] = data
        truth += new
    return Written(truth=truth, memory=memory)


def read(memory: Memory, after: int = 0) -> list[bytes]:
    found = survey(memory, after=after)
    return [bytes(one) for closed in found.closed for one in load(memory, closed).payloads]


def read_or_refuse(memory: Memory) -> list[bytes] | None:
    try:
        return read(memory)
    except RunError as error:
        said = str(error)
    assert re.match(r"journal/\d{6}\.log( at byte \d+)?: ", said), said
    assert said.endswith((WAY_OUT, "use the version of batchrunner that wrote it")), said
    return None


def is_prefix(found: list[bytes] | None, truth: list[bytes]) -> bool:
    return found is None or found == truth[: len(found)]


def test_what_was_written_is_read_whatever_was_abandoned_on_the_way():
    written = write([3, 0, 2, 4], abandoned=2)

    assert read(written.memory) == written.truth
    assert read(written.memory, after=3) == written.truth[3:]
    assert read(written.memory, after=9) == []


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_cut_at_every_byte_gives_a_prefix_or_a_refusal(number: int):
    written = write([2, 3, 4], abandoned=1)
    whole = written.memory.files[number]

    for length in range(len(whole)):
        written.memory.files[number] = whole[:length]
        found = read_or_refuse(written.memory)
        assert is_prefix(found, written.truth)
        assert found is not None or number < 3, "a torn last segment needs no human step"


def test_a_cut_of_the_last_segment_loses_only_what_is_cut():
    written = write([2, 4])
    whole = written.memory.files[2]
    record = (len(whole) - HEADER_BYTES) // 4

    for length in range(len(whole)):
        written.memory.files[2] = whole[:length]
        kept = max(0, length - HEADER_BYTES) // record
        assert read(written.memory) == written.truth[: 2 + kept]


@pytest.mark.parametrize("number", [1, 2])
def test_every_flipped_bit_gives_a_prefix_or_a_refusal(number: int):
    written = write([3, 3])
    whole = written.memory.files[number]

    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        written.memory.files[number] = bytes(flipped)
        assert is_prefix(read_or_refuse(written.memory), written.truth)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_zeros_from_any_byte_on_give_a_prefix_or_a_refusal(number: int):
    written = write([2, 3, 3])
    whole = written.memory.files[number]

    for start in range(len(whole)):
        for length in (len(whole), len(whole) + 4096):
            written.memory.files[number] = whole[:start].ljust(length, b"\0")
            assert is_prefix(read_or_refuse(written.memory), written.truth)


def mangled(draw: st.DrawFn, written: Written) -> None:
    """Do one bad thing to the files."""
    files = written.memory.files
    number = draw(st.sampled_from(sorted(files)))
    data = files[number]
    at = draw(st.integers(0, len(data)))
    donor = draw(st.sampled_from(sorted(files)))
    kind = draw(st.sampled_from(["cut", "flip", "drop", "noise", "graft", "foreign", "swap", "double", "lose", "copy"]))
    match kind:
        case "cut":
            files[number] = data[:at]
        case "flip":
            files[number] = data[:at] + bytes(b ^ draw(st.integers(1, 255)) for b in data[at : at + 1]) + data[at + 1 :]
        case "drop":
            files[number] = data[:at] + data[at + draw(st.integers(1, 200)) :]
        case "noise":
            files[number] = data[:at] + draw(st.binary(min_size=1, max_size=200)) + data[at:]
        case "graft":
            files[number] = data[:at] + files[donor][draw(st.integers(0, len(files[donor]))) :]
        case "foreign":
            other = write([5, 5, 5], run_id=OTHER_RUN).memory.files[draw(st.integers(1, 3))]
            files[number] = draw(
                st.sampled_from([data + other[HEADER_BYTES:], other, data[:at] + other[HEADER_BYTES:]])
            )
        case "swap":
            files[number], files[donor] = files[donor], data
        case "double":
            piece = data[HEADER_BYTES:]
            files[number] = data + draw(st.sampled_from([piece, piece[: len(piece) // 2], piece[len(piece) // 2 :]]))
        case "lose":
            del files[number]
        case "copy":
            files[max(files) + 1] = data


def swapped_records(draw: st.DrawFn, written: Written) -> None:
    """Exchange, repeat or leave out whole records, each valid by itself."""
    files = written.memory.files
    number = draw(st.sampled_from(sorted(files)))
    header, body = files[number][:HEADER_BYTES], files[number][HEADER_BYTES:]
    records = [b"\xff\xb5\xfe\xc1" + one for one in body.split(b"\xff\xb5\xfe\xc1")[1:]]
    if records:
        picked = draw(st.lists(st.sampled_from(records), max_size=len(records) + 2))
        files[number] = header + b"".join(picked)


def check_harm(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    written = write(sizes, abandoned=data.draw(st.integers(0, 2)), size=data.draw(st.sampled_from([0, 0, 90])))

    for _ in range(data.draw(st.integers(1, 3))):
        if not written.memory.files:
            break
        harm = data.draw(st.sampled_from([mangled, mangled, swapped_records]))
        harm(data.draw, written)

    assert is_prefix(read_or_refuse(written.memory), written.truth)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_any_harm_gives_a_prefix_or_a_refusal(data: st.DataObject):
    check_harm(data)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_much_harm_gives_a_prefix_or_a_refusal(data: st.DataObject):
    check_harm(data)
