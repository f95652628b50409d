"""The disk runs full in the middle: nothing that was answered is lost, nothing is bought twice."""

from __future__ import annotations

import polars as pl
import pytest
from counting_server import counting
from crash.disks import enlarge, small_disk
from driving import batchrunner, prompts, run_words, write_rows

CONCURRENCY = 50


def talks(count: int) -> list[dict[str, object]]:
    return [{"id": f"t{n}", "turns": [f"Ask {n}.", f"Again {n}.", f"At last {n}."]} for n in range(count)]


CASES = {
    "plain": (lambda megabytes: prompts(int(megabytes * 900)), 400),
    "turns": (lambda megabytes: talks(int(megabytes * 200)), 400),
    "20 kB": (lambda megabytes: prompts(int(megabytes * 60)), 20_000),
}


ALL = [
    pytest.param(name, megabytes, marks=[pytest.mark.slow, pytest.mark.timeout(180)])
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
        full = batchrunner(*words)
        answered = server.books().answered.total()
        enlarge(disk, 200)
        rest = batchrunner(*words)
        books = server.books()
        table = pl.read_parquet(rest.summary["results"])

    assert full.code == 16, full.err
    assert 0 < answered < books.answered.total()
    assert rest.code == 0, rest.err
    assert table["item_id"].to_list() == [row["id"] for row in rows]
    assert set(table["status"]) == {"succeeded"}
    assert books.asked == books.answered
    assert set(books.answered.values()) == {1}
