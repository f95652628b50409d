"""SIGTERM at any moment: what is answered within the grace is paid for once, the rest is given up and counted."""

from __future__ import annotations

import random
import signal
import time
from itertools import chain

import polars as pl
import pytest
from counting_server import counting
from crash.moments import Moment, wait_until_it_hears
from driving import batchrunner, finish, prompts, run_words, start, write_rows

CONCURRENCY = 50
GRACE_S = 25.0
SLOW_S = 30.0
SLICES = [pytest.param(2_000, 10, seed, marks=[pytest.mark.slow, pytest.mark.timeout(240)]) for seed in range(2)]


@pytest.mark.parametrize(("count", "terms", "seed"), [(300, 2, 0), *SLICES])
def test_answers_faster_than_the_grace_are_paid_for_once(tmp_path, count, terms, seed):
    """Terminated again and again, at its start and while requests are out: each question is answered once in all."""
    chance, lives = random.Random(seed), []
    with counting(latency=0.2, reply_bytes=3_000) as server:
        source = write_rows(tmp_path / "rows.jsonl", prompts(count))
        words = run_words(source, server.url, "--concurrency", CONCURRENCY, "--out", tmp_path / "run", "--json")
        answered = sorted(chance.sample(range(count - 2 * CONCURRENCY), k=terms // 2))
        asking = [Moment(count) for count in answered]
        starting = [Moment(0, chance.uniform(0.0, 0.8)) for _ in range(terms - len(asking))]
        for moment in chain.from_iterable(zip(starting, asking, strict=True)):
            process = start(*words)
            wait_until_it_hears(process, signal.SIGTERM)
            moment.wait(process, server)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            lives.append(finish(process))
            assert time.monotonic() - began < GRACE_S
        last = batchrunner(*words)
        books = server.books()

    assert [(life.code, life.summary["exit"]) for life in lives] == [(143, 143)] * terms
    assert last.code == 0, last.err
    assert set(books.answered.values()) == {1}
    assert books.asked == books.answered
    table = pl.read_parquet(last.summary["results"])
    assert table["item_id"].to_list() == [f"p{n}" for n in range(count)]
    assert set(table["status"]) == {"succeeded"}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(5))
def test_terminated_while_it_makes_the_results_it_finishes_or_says_143(tmp_path, seed):
    """All answers are there: the run ends as finished, or the next one finishes it without a request."""
    chance, count = random.Random(seed), 1_000
    with counting(latency=0.05, reply_bytes=3_000) as server:
        source = write_rows(tmp_path / "rows.jsonl", prompts(count))
        words = run_words(source, server.url, "--concurrency", CONCURRENCY, "--out", tmp_path / "run", "--json")
        process = start(*words)
        Moment(count, chance.uniform(0.0, 0.3)).wait(process, server)
        process.send_signal(signal.SIGTERM)
        first = finish(process)
        last = batchrunner(*words)
        books = server.books()

    assert first.code == first.summary["exit"]
    assert first.code in (0, 143)
    assert (first.summary["results"] is not None) == (first.code == 0)
    assert last.code == 0
    assert pl.read_parquet(last.summary["results"]).height == count
    assert books.asked.total() == count


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_answers_slower_than_the_grace_are_given_up_and_counted(tmp_path, seed):
    """Quick answers first, then slow ones: those that are out when the grace ends are counted, one by one."""
    chance, concurrency, grace_s = random.Random(seed), 20, 2.0
    rows = [*prompts(200), *prompts(100, prefix="slow")]
    with counting(latency=0.1, slow=SLOW_S) as server:
        source = write_rows(tmp_path / "rows.jsonl", rows)
        words = run_words(source, server.url, "--concurrency", concurrency, "--out", tmp_path / "run", "--json")
        process = start(*words, "--grace", f"{grace_s:g}s")
        Moment(200, chance.uniform(0.0, 1.0)).wait(process, server)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ended = finish(process)
        took_s = time.monotonic() - began
        books = server.books()

    assert ended.code == 143, ended.err
    assert grace_s <= took_s < grace_s + 2
    assert books.answered.total() == ended.summary["items"]["succeeded"] == 200
    assert 1 <= books.unanswered <= concurrency
    assert ended.summary["possibly_billed"] == books.unanswered
