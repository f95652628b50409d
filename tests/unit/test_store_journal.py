"""The journal: what is written survives, what cannot be what was written is refused."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import RunError
from batchrunner.store.chain import load, survey
from batchrunner.store.framing import HEADER_BYTES, START, Header, pack_header
from batchrunner.store.journal import MOST_RESERVED, Journal, SegmentFiles

if TYPE_CHECKING:
    from batchrunner.store.framing import End

RUN = "ab" * 16
on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc and /dev/full")
ONE, TWO, THREE, FOUR = (b'{"n":%d}' % n for n in range(1, 5))


def journal_in(directory: Path, *, before: End = START, number: int = 1, epoch: int = 1) -> Journal:
    return Journal(SegmentFiles(directory, RUN), epoch=epoch, before=before, number=number, closed=deque())


def read(directory: Path, after: int = 0) -> list[bytes]:
    segments = SegmentFiles(directory, RUN)
    return [bytes(one) for closed in survey(segments, after=after).closed for one in load(segments, closed).payloads]


def descriptor_of(path: Path) -> int:
    """The descriptor under which this process has `path` open."""
    return next(int(one.name) for one in Path("/proc/self/fd").iterdir() if target_of(one) == path)


def target_of(link: Path) -> Path | None:
    try:
        return link.readlink()
    except FileNotFoundError:
        return None


def break_file(path: Path, other: int) -> None:
    """From now on, writing to the open file at `path` goes to `other` instead."""
    os.dup2(other, descriptor_of(path))
    os.close(other)


def test_what_was_appended_is_read_in_order(tmp_path: Path):
    journal = journal_in(tmp_path)

    assert journal.append([ONE]) == 1
    assert journal.append([TWO, THREE]) == 3

    assert read(tmp_path) == [ONE, TWO, THREE]
    assert read(tmp_path, after=3) == []
    journal.close()


def test_records_are_on_disk_before_anything_else_happens_and_private(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE])

    path = tmp_path / "000001.log"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == journal.size_bytes
    journal.close()


def test_a_new_segment_goes_on_where_the_last_one_ended(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE, TWO])
    journal.rotate()
    journal.append([THREE])

    assert [closed.end.sequence for closed in journal.closed] == [2]
    assert read(tmp_path) == [ONE, TWO, THREE]
    journal.close()
    assert [closed.end.sequence for closed in journal.closed] == [2, 3]


def test_a_start_ignores_for_good_what_was_torn_before_it(tmp_path: Path):
    first = journal_in(tmp_path)
    first.append([ONE, TWO])
    first.close()
    path = tmp_path / "000001.log"
    path.write_bytes(path.read_bytes()[:-1])
    found = survey(SegmentFiles(tmp_path, RUN), after=0)

    second = journal_in(tmp_path, before=found.tail, number=2)
    second.append([THREE])

    assert found.torn_bytes == len(TWO) + 20 - 1
    assert read(tmp_path) == [ONE, THREE]
    second.close()


def test_a_torn_tail_is_cut_and_counted(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE])
    journal.close()
    with (tmp_path / "000001.log").open("ab") as file:
        file.write(b"\0" * 100)

    found = survey(SegmentFiles(tmp_path, RUN), after=0)

    assert found.torn_bytes == 100
    assert found.tail.sequence == 1


def test_a_header_torn_by_a_crash_needs_no_human_step(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE])
    journal.close()
    (tmp_path / "000002.log").write_bytes(b"\x89brl")
    (tmp_path / "000003.log").write_bytes(bytes(200))

    found = survey(SegmentFiles(tmp_path, RUN), after=0)

    assert found.torn_bytes == 204
    assert read(tmp_path) == [ONE]


def test_a_damaged_record_with_valid_ones_behind_it_is_refused_with_file_and_offset(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE, TWO, THREE])
    journal.close()
    path = tmp_path / "000001.log"
    data = bytearray(path.read_bytes())
    second = HEADER_BYTES + 20 + len(ONE)
    data[second + 22] ^= 1
    path.write_bytes(data)

    with pytest.raises(RunError) as refused:
        read(tmp_path)

    assert str(refused.value) == (
        f"{path} at byte {second}: damaged record with valid ones behind it; "
        "restore it from a backup, or run again with --salvage: what cannot be read is asked again"
    )


@pytest.mark.parametrize("harm", ["missing", "short", "renamed", "foreign", "newer"])
def test_a_journal_that_cannot_be_what_was_written_is_refused(tmp_path: Path, harm: str):
    journal = journal_in(tmp_path)
    journal.append([ONE, TWO])
    journal.rotate()
    journal.append([THREE])
    journal.close()
    first, second = tmp_path / "000001.log", tmp_path / "000002.log"
    match harm:
        case "missing":
            first.unlink()
        case "short":
            first.write_bytes(first.read_bytes()[:-1])
        case "renamed":
            second.rename(tmp_path / "000007.log")
        case "foreign":
            header = Header(run_id="cd" * 16, segment=2, epoch=1, before=START)
            second.write_bytes(pack_header(header))
        case "newer":
            data = second.read_bytes()
            second.write_bytes(data[:8] + b"\x02" + data[9:])

    with pytest.raises(RunError, match=r"journal|\.log"):
        read(tmp_path)


@on_linux
def test_a_failed_write_moves_what_is_not_safe_to_a_new_segment(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE])
    journal.sync()
    journal.append([TWO])
    break_file(tmp_path / "000001.log", os.open("/dev/full", os.O_WRONLY))

    assert journal.append([THREE]) == 3

    assert len(journal.failures) == 1
    assert journal.append([FOUR]) == 4
    assert read(tmp_path) == [ONE, TWO, THREE, FOUR]
    assert [(closed.end.segment, closed.end.sequence) for closed in journal.closed] == [(1, 1)]
    journal.close()


@on_linux
def test_a_failed_sync_is_not_repeated_on_the_same_file(tmp_path: Path):
    journal = journal_in(tmp_path)
    reader, writer = os.pipe()
    break_file(tmp_path / "000001.log", writer)
    journal.append([ONE, TWO])

    journal.sync()

    assert journal.unsynced == 0
    assert len(journal.failures) == 1
    assert read(tmp_path) == [ONE, TWO]
    os.close(reader)
    journal.close()


@on_linux
def test_a_second_failure_is_raised_and_nothing_is_written_any_more(tmp_path: Path):
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = journal_in(directory)
    journal.append([ONE])
    break_file(directory / "000001.log", os.open("/dev/full", os.O_WRONLY))
    directory.rename(tmp_path / "gone")

    with pytest.raises(OSError, match="No such file"):
        journal.append([TWO])
    with pytest.raises(OSError, match="No such file"):
        journal.append([THREE])
    journal.close()

    assert read(tmp_path / "gone") == [ONE]


@on_linux
def test_a_full_disk_releases_the_reserve(tmp_path: Path):
    journal = journal_in(tmp_path)
    assert (tmp_path / ".reserve").stat().st_size > 0
    break_file(tmp_path / "000001.log", os.open("/dev/full", os.O_WRONLY))

    journal.append([ONE])

    assert not (tmp_path / ".reserve").exists()
    assert read(tmp_path) == [ONE]
    journal.close()


def test_room_is_set_aside_for_as_many_of_the_largest_as_are_expected(tmp_path: Path):
    journal = journal_in(tmp_path)

    journal.append([bytes(100_000), ONE], expected=300)
    journal.append([ONE], expected=300)

    assert 30_000_000 <= (tmp_path / ".reserve").stat().st_size < 50_000_000
    journal.close()
    assert not (tmp_path / ".reserve").exists()


def test_the_room_set_aside_has_a_bound(tmp_path: Path):
    journal = journal_in(tmp_path)

    journal.append([bytes(100_000)], expected=100_000)

    assert (tmp_path / ".reserve").stat().st_size == MOST_RESERVED
    journal.close()


def test_dropping_keeps_what_is_newer(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.append([ONE])
    journal.rotate()
    journal.append([TWO])

    SegmentFiles(tmp_path, RUN).drop(1)

    assert read(tmp_path, after=1) == [TWO]
    journal.close()


def test_a_close_that_fails_makes_no_outcome_count_twice(tmp_path: Path):
    """As on NFS, where closing a file may say that the disk is full."""
    journal = journal_in(tmp_path)
    journal.append([ONE, TWO])
    journal.sync()
    os.close(descriptor_of(tmp_path / "000001.log"))

    with suppress(OSError):
        journal.close()
    journal.close()

    assert [closed.end.sequence for closed in journal.closed] == [2]
