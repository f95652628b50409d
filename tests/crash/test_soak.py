"""A long run with everything at once: the same results as a calm one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pytest
from counting_server import counting
from crash.moments import Moment
from driving import batchrunner, finish, prompts, run_words, start, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from driving import Ended

RATES = {"reset": 0.02, "error": 0.05, "throttle": 0.05, "cut": 0.02}
SAME = ["item_id", "row", "status", "text", "finish_reason", "prompt_tokens", "completion_tokens"]
CONCURRENCY = 50


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_faults_and_kills_leave_the_results_of_a_calm_run(tmp_path):
    count, kills, chance = 20_000, 5, random.Random(20261120)
    rows = [{**row, "stream": n % 2 == 0} for n, row in enumerate(prompts(count))]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.01) as server:
        calm = batchrunner(*words(source, server.url, tmp_path / "calm"), timeout_s=150)
    with counting(latency=0.01, **RATES) as server:
        command = words(source, server.url, tmp_path / "rough")
        for number, answered in enumerate(sorted(chance.sample(range(1, count), kills))):
            process = start(*command, env={"TESS_API_KEY": f"life-{number}"})
            Moment(answered).wait(process, server)
            process.kill()
            assert finish(process).code == -9
        rough = batchrunner(*command, timeout_s=150)
        books = server.books()

    assert (calm.code, rough.code) == (0, 0), rough.err
    assert table(rough).equals(table(calm))
    assert {fault: round(times / books.asked.total(), 2) for fault, times in books.by_fault.items()} == RATES
    # Only kills make an answer be bought again.
    assert books.answered.total() - count <= kills * CONCURRENCY


def words(source: Path, url: str, out: Path) -> Sequence[object]:
    return run_words(source, url, "--concurrency", CONCURRENCY, "--out", out, "--json")


def table(ended: Ended) -> pl.DataFrame:
    return pl.read_parquet(ended.summary["results"], columns=SAME)
