"""SIGKILL at random moments, the same command again, and the server's own count of what was paid for."""

from __future__ import annotations

import random
import signal
import time

import polars as pl
import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows

CONCURRENCY = 20


@pytest.mark.parametrize(
    ("count", "most_kills"),
    [(500, 7), pytest.param(1_500, 25, marks=[pytest.mark.slow, pytest.mark.timeout(240)])],
)
def test_nothing_is_lost_and_nothing_settled_is_paid_for_twice(tmp_path, count, most_kills):
    """Kill after kill over one run: no row missing, none twice, and at most what was in flight is answered again."""
    kills, chance = 0, random.Random(20261120)
    rows = write_rows(tmp_path / "rows.jsonl", prompts(count))
    with api(tmp_path / "api.jsonl", latency=0.15) as tess:
        words = run_words(rows, tess.url, "--concurrency", CONCURRENCY, "--out", tmp_path / "run")
        while kills < most_kills:
            process = start(*words)
            # From before the first request to well into the run, whatever the machine's speed.
            time.sleep(chance.uniform(0.3, 1.6))
            process.send_signal(signal.SIGKILL)
            finish(process)
            kills += 1
        ended = batchrunner(*words, "--json")
        answered = tess.answered()

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["item_id"].to_list() == [f"p{n}" for n in range(count)]
    assert set(table["status"]) == {"succeeded"}
    assert len(answered) == count
    assert sum(answered.values()) - count <= kills * CONCURRENCY


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_twenty_kills_over_five_thousand_rows(tmp_path):
    """The same with more rows and more in flight, so that kills also meet parts being made and commits."""
    count, concurrency, chance = 5_000, 64, random.Random(7)
    rows = write_rows(tmp_path / "rows.jsonl", prompts(count))
    with api(tmp_path / "api.jsonl", latency=0.2) as tess:
        words = run_words(rows, tess.url, "--concurrency", concurrency, "--out", tmp_path / "run")
        for _ in range(20):
            process = start(*words)
            time.sleep(chance.uniform(0.5, 2.2))
            process.kill()
            finish(process)
        ended = batchrunner(*words, "--json")
        answered = tess.answered()

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["item_id"].to_list() == [f"p{n}" for n in range(count)]
    assert len(answered) == count
    assert sum(answered.values()) - count <= 20 * concurrency


def test_after_a_kill_the_next_run_says_what_may_be_paid_twice(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(100))
    with api(tmp_path / "api.jsonl", latency=0.3) as tess:
        words = run_words(rows, tess.url, "--concurrency", 5, "--out", tmp_path / "run")
        process = start(*words)
        while len(tess.seen()) < 10:
            pass
        process.kill()
        finish(process)

        ended = batchrunner(*words)

    assert ended.code == 0
    assert "resuming" in ended.err
    assert "may be paid twice" in ended.err
