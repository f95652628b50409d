"""The disk runs full in the middle: nothing that was answered is lost, nothing is bought twice."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from typing import TYPE_CHECKING

import anyio
import polars as pl
import pytest
from counting_server import counting
from crash.disks import enlarge, small_disk
from driving import batchrunner, prompts, run_words, write_rows

from batchrunner.errors import StoreError
from batchrunner.records import Outcome
from batchrunner.store import Writer
from batchrunner.store.chain import load, survey
from batchrunner.store.framing import START
from batchrunner.store.journal import Journal, SegmentFiles
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch

if TYPE_CHECKING:
    from batchrunner.store.run import Run

CONCURRENCY = 50


def talks(count: int) -> list[dict[str, object]]:
    return [{"id": f"t{n}", "turns": [f"Ask {n}.", f"Again {n}.", f"At last {n}."]} for n in range(count)]


CASES = {
    "plain": (lambda megabytes: prompts(int(megabytes * 900)), 400),
    "turns": (lambda megabytes: talks(int(megabytes * 200)), 400),
    "20 kB": (lambda megabytes: prompts(int(megabytes * 60)), 20_000),
}


ALL = [
    pytest.param(name, megabytes, marks=[pytest.mark.slow, pytest.mark.timeout(300)])
    for name in CASES
    for megabytes in (1.5, 2, 4, 8)
]


@pytest.mark.parametrize(("name", "megabytes"), [("20 kB", 3), *ALL])
def test_every_answer_that_arrived_is_there_once_there_is_room(tmp_path, name, megabytes):
    make, reply_bytes = CASES[name]
    rows = make(megabytes)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with small_disk(tmp_path / "disk", megabytes) as disk, counting(latency=0.05, reply_bytes=reply_bytes) as server:
        words = run_words(source, server.url, "--concurrency", CONCURRENCY, "--out", disk / "run", "--json")
        full = batchrunner(*words, "--disk-wait", "0s", timeout_s=100)
        answered = server.books().answered.total()
        enlarge(disk, 200)
        rest = batchrunner(*words, timeout_s=100)
        books = server.books()
        table = pl.read_parquet(rest.summary["results"])

    assert full.code == 16, full.err
    assert 0 < answered < books.answered.total()
    assert rest.code == 0, rest.err
    assert table["item_id"].to_list() == [row["id"] for row in rows]
    assert set(table["status"]) == {"succeeded"}
    assert books.asked == books.answered
    assert set(books.answered.values()) == {1}


def test_what_is_not_synced_yet_need_not_fit_on_the_disk_twice(tmp_path):
    """More than half of the disk was written, but not synced, when it is full."""
    with small_disk(tmp_path / "disk", 2) as disk:
        segments = SegmentFiles(disk, "ab" * 16)
        journal = Journal(segments, epoch=1, before=START, number=1, closed=deque())
        payloads = [b"%060000d" % number for number in range(100)]
        written = [journal.append([payload]) for payload in payloads if not journal.failures]
        journal.close()

        found = survey(segments, after=0).closed
        kept = [bytes(payload) for closed in found for payload in load(segments, closed).payloads]

    assert 25 <= len(written) < 100
    assert kept == payloads[: len(written)]


def test_a_part_that_finds_no_room_is_waited_for_and_then_told(tmp_path):
    """Room for the answers in flight, but not for the part: it is not made again and again."""
    with small_disk(tmp_path / "disk", 10) as disk, open_run(disk / "run") as run:
        run.begin(Epoch(input={}, asked={}, rows=320))
        assert anyio.run(fill_a_segment, run) == ["full", "trouble"]


async def fill_a_segment(run: Run) -> list[str]:
    """Until there is trouble. What the writer tells."""
    told, chance = [], random.Random(0)
    trouble = anyio.Event()
    with contextlib.suppress(StoreError):
        async with Writer(
            run,
            on_full=lambda _: told.append("full"),
            on_trouble=lambda _: (told.append("trouble"), trouble.set()),
            on_room=lambda: told.append("room"),
            disk_wait_s=0.5,
            expected=lambda: 8,
        ) as writer:
            for row in range(320):
                text = chance.randbytes(5_000).hex()
                known = {"item_id": f"{row}", "row": row, "input_file": "f", "input_line": row + 1, "attempts": 1}
                await writer.record(Outcome(**known, status="succeeded", text=text, response=text))
            with anyio.move_on_after(10):
                await trouble.wait()
    return told
