"""Many workers, one journal: what `record` has returned for is never lost, whatever fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from batchrunner.errors import BatchrunnerError, StoreError
from batchrunner.records import Outcome
from batchrunner.store import parts
from batchrunner.store import run as run_module
from batchrunner.store import writer as writer_module
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.view import view_run
from batchrunner.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchrunner.store.commits import Part
    from batchrunner.store.run import Run

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc and /dev/full")
ROWS = 300


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1} | fields)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def run(directory: Path) -> Iterator[Run]:
    with open_run(directory) as run:
        run.begin(Epoch(input={}, asked={}, rows=ROWS))
        yield run


async def record_all(writer: Writer, rows: range, **fields: Any) -> None:
    async with anyio.create_task_group() as group:
        for row in rows:
            group.start_soon(writer.record, outcome(row, **fields))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await anyio.sleep(0.01)
    pytest.fail("it never came true")


async def recorded(directory: Path) -> list[int]:
    """The row of every outcome the run holds, in order."""
    view = await anyio.to_thread.run_sync(view_run, directory)
    return sorted(row for source in view.sources for row in source.read(["row"])["row"].to_pylist())


def break_file(path: Path, other: int) -> None:
    """From now on, writing to the open file at `path` goes to `other` instead."""
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and link.readlink() == path:
            os.dup2(other, int(link.name))
    os.close(other)


async def break_journal(directory: Path, *, at: str = "/dev/full") -> None:
    def replace() -> None:
        path = max((directory / "journal").glob("*.log"))
        break_file(path, os.open(at, os.O_WRONLY))

    await anyio.to_thread.run_sync(replace)


async def test_an_outcome_is_on_disk_when_record_returns(run: Run, directory: Path):
    async with Writer(run) as writer:
        await writer.record(outcome(7))

        assert await recorded(directory) == [7]
        assert run.ledger.is_settled(7)


async def test_many_workers_lose_and_double_nothing(run: Run, directory: Path):
    async with Writer(run) as writer:
        await record_all(writer, range(ROWS))

    assert await recorded(directory) == list(range(ROWS))
    assert run.ledger.succeeded == ROWS


async def test_on_the_way_out_everything_becomes_a_part(run: Run, directory: Path):
    async with Writer(run) as writer:
        await record_all(writer, range(10))

    assert [part.rows for part in run.commit.parts] == [10]
    assert list((directory / "journal").iterdir()) == []


async def test_parts_are_made_on_the_way(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "SEAL_OUTCOMES", 50)
    async with Writer(run) as writer:
        for start in range(0, ROWS, 50):
            await record_all(writer, range(start, start + 50))

    assert len(run.commit.parts) > 1
    assert await recorded(directory) == list(range(ROWS))


async def test_outcomes_are_synced_in_time_without_any_further_one(run: Run):
    async with Writer(run) as writer:
        await writer.record(outcome(0))
        assert run.unsynced == 1

        await until(lambda: not run.unsynced)


async def test_a_hundred_outcomes_are_synced_at_once(run: Run):
    async with Writer(run, clock=lambda: 0.0) as writer:
        await record_all(writer, range(250))
        await anyio.sleep(0.05)

        assert run.unsynced < 100


async def test_a_cancelled_worker_loses_nothing(run: Run, directory: Path):
    async with Writer(run) as writer:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.record(outcome(3))

    assert await recorded(directory) == [3]


async def test_a_cancelled_run_still_ends_whole(run: Run, directory: Path):
    with anyio.CancelScope() as scope:
        async with Writer(run) as writer:
            await writer.record(outcome(3))
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert [part.rows for part in run.commit.parts] == [1]


async def test_memory_between_workers_and_disk_is_bounded(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer_module, "HELD_BYTES", 5_000)
    held = []

    async def watch(writer: Writer) -> None:
        for _ in range(100):
            held.append(writer.held_bytes)
            await anyio.lowlevel.checkpoint()

    async with Writer(run) as writer:
        async with anyio.create_task_group() as group:
            group.start_soon(record_all, writer, range(100))
            for row in range(100, 150):
                group.start_soon(writer.record, outcome(row, text="x" * 2_000))
            group.start_soon(watch, writer)
        await writer.record(outcome(150, text="x" * 20_000))

    assert 2_000 < max(held) <= 5_000
    assert await recorded(directory) == list(range(151))


async def test_an_error_of_the_body_is_passed_on_as_it_is(run: Run, directory: Path):
    async def record_and_fail() -> None:
        async with Writer(run) as writer:
            await writer.record(outcome(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await record_and_fail()
    assert await recorded(directory) == [0]


@on_linux
async def test_a_full_disk_is_told_at_once_and_what_is_in_flight_still_lands(run: Run, directory: Path):
    told: list[BatchrunnerError] = []
    async with Writer(run, on_trouble=told.append) as writer:
        await record_all(writer, range(5))
        await break_journal(directory)
        await record_all(writer, range(5, 20))
        await anyio.sleep(0.01)

        assert [type(trouble) for trouble in told] == [StoreError]
        assert "no space left on device; make room" in str(told[0])

    assert await recorded(directory) == list(range(20))


@on_linux
async def test_a_disk_that_takes_nothing_more_is_a_store_error_for_everyone(run: Run, directory: Path):
    refused: dict[int, str] = {}

    async def record(writer: Writer, row: int) -> None:
        try:
            await writer.record(outcome(row))
        except StoreError as error:
            refused[row] = str(error)

    async def buy() -> None:
        async with Writer(run) as writer, anyio.create_task_group() as group:
            await record_all(writer, range(5))
            await break_journal(directory)
            await anyio.to_thread.run_sync((directory / "journal").rename, directory / "gone")
            for row in range(5, 20):
                group.start_soon(record, writer, row)

    with pytest.raises(StoreError):
        await buy()

    assert sorted(refused) == list(range(5, 20))
    assert all("give the same command again" in said for said in refused.values())
    await anyio.to_thread.run_sync((directory / "gone").rename, directory / "journal")
    assert await recorded(directory) == list(range(5))


@on_linux
async def test_a_failed_sync_is_survived_once_and_told_the_second_time(run: Run, directory: Path):
    told: list[BatchrunnerError] = []
    async with Writer(run, on_trouble=told.append) as writer:
        for row in range(2):
            pipe = directory / f"pipe-{row}"
            reader = await anyio.to_thread.run_sync(make_pipe, pipe)
            await break_journal(directory, at=str(pipe))
            await writer.record(outcome(row))
            await until(lambda: not run.unsynced)
            os.close(reader)
            await until(lambda: len(told) == row)  # noqa: B023

    assert await recorded(directory) == [0, 1]


def make_pipe(path: Path) -> int:
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


async def test_a_part_that_cannot_be_made_is_told_and_made_on_the_way_out(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "SEAL_OUTCOMES", 10)
    told: list[BatchrunnerError] = []
    async with Writer(run, on_trouble=told.append) as writer:
        await anyio.to_thread.run_sync((directory / "parts").rename, directory / "gone")
        await record_all(writer, range(30))
        await until(lambda: bool(told))
        await anyio.to_thread.run_sync((directory / "gone").rename, directory / "parts")
        await record_all(writer, range(30, 40))

    assert await recorded(directory) == list(range(40))
    assert list((directory / "journal").iterdir()) == []


async def test_a_part_that_does_not_fit_is_waited_for_and_not_tried_without_end(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """The journal's own room is no sign: a part may need more, or have another quota."""
    monkeypatch.setattr(run_module, "SEAL_OUTCOMES", 10)
    make, tries, fits, told = parts.write, [], [False], []

    def write(*args: Any, **more: Any) -> Part:
        tries.append(1)
        if not fits[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(*args, **more)

    monkeypatch.setattr(parts, "write", write)
    waiting = {"on_full": lambda _: told.append("full"), "on_room": lambda: told.append("room")}
    async with Writer(run, **waiting, disk_wait_s=30.0) as writer:
        await record_all(writer, range(30))
        await until(lambda: bool(told))
        await anyio.sleep(0.6)
        assert told == ["full"]
        assert len(tries) < 6
        fits[0] = True
        await until(lambda: len(told) > 1)
        assert told == ["full", "room"]
        assert await recorded(directory) == list(range(30))


async def test_nothing_is_recorded_once_the_writer_has_closed(run: Run):
    async with Writer(run) as writer:
        pass

    with pytest.raises(RuntimeError, match="closed"):
        await writer.record(outcome(0))


async def test_a_bug_in_the_writing_thread_hangs_nobody(run: Run):
    with pytest.raises(BaseExceptionGroup) as raised:
        async with Writer(run) as writer:
            await writer.record(outcome(ROWS + 1))

    assert raised.group_contains(IndexError)
