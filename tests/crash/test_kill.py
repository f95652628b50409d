"""SIGKILL at any moment, the same command again, and the server's own count of what was paid for."""

from __future__ import annotations

import random
import re
import signal

import polars as pl
import pytest
from counting_server import counting
from crash.moments import Moment
from driving import batchrunner, finish, prompts, run_words, start, write_rows

CONCURRENCY = 50
REPLY_BYTES = 6_000
"""Large enough for 2,000 rows to make parts while the run goes on."""
SLICES = [pytest.param(2_000, 10, seed, marks=[pytest.mark.slow, pytest.mark.timeout(240)]) for seed in range(20)]


def moments(chance: random.Random, *, rows: int, kills: int) -> list[Moment]:
    """A third while it starts or resumes, a third while requests are out, the last while results are made."""
    third = kills // 3
    starting = [Moment(0, chance.uniform(0.05, 1.3)) for _ in range(third)]
    asking = [Moment(count) for count in sorted(chance.sample(range(rows), kills - 2 * third))]
    for moment in starting:
        asking.insert(chance.randint(0, len(asking)), moment)
    return [*asking, *(Moment(rows, chance.uniform(0.0, 1.3)) for _ in range(third))]


@pytest.mark.parametrize(("count", "kills", "seed"), [(200, 3, 0), *SLICES])
def test_a_kill_costs_at_most_what_was_in_flight(tmp_path, count, kills, seed):
    """Kill after kill over one run: no row missing, none twice, and what is asked again was in flight at its kill."""
    rows, lives = prompts(count), []
    with counting(latency=0.1, reply_bytes=REPLY_BYTES) as server:
        source = write_rows(tmp_path / "rows.jsonl", rows)
        words = run_words(source, server.url, "--concurrency", CONCURRENCY, "--out", tmp_path / "run", "--json")
        left = moments(random.Random(seed), rows=count, kills=kills)
        while left:
            process = start(*words, env={"TESS_API_KEY": f"life-{len(lives)}"})
            left[0].wait(process, server)
            process.kill()
            lives.append(finish(process))
            # A life that came to its end before is followed by one that is killed sooner.
            left = left[1:] if lives[-1].code else [Moment(count, left[0].seconds / 2), *left[1:]]
        last = batchrunner(*words, env={"TESS_API_KEY": "life-last"})
        books = server.books()

    assert [life.code for life in lives if life.code] == [-signal.SIGKILL] * kills
    assert last.code == 0, last.err
    table = pl.read_parquet(last.summary["results"])
    assert table["item_id"].to_list() == [row["id"] for row in rows]
    assert set(table["status"]) == {"succeeded"}
    assert [text.rpartition(" ")[0] for text in table["text"]] == [f"echo: {row['prompt']}" for row in rows]
    assert books.answered.keys() == {row["prompt"] for row in rows}
    assert books.most_in_flight <= CONCURRENCY
    # What had no answer yet counts too: all that a life asked in vain was in flight when it was killed.
    assert {life: again for life, again in books.asked_again().items() if again > CONCURRENCY} == {}


@pytest.mark.slow
def test_after_a_kill_the_next_run_says_what_may_be_paid_twice(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(100))
    with counting(latency=0.3) as server:
        words = run_words(rows, server.url, "--concurrency", 5, "--out", tmp_path / "run")
        process = start(*words, env={"TESS_API_KEY": "killed"})
        Moment(10).wait(process, server)
        process.kill()
        finish(process)

        ended = batchrunner(*words)
        again = server.books().asked_again()["killed"]

    assert ended.code == 0
    assert "resuming" in ended.err
    told = re.search(r"up to (\d+) requests were in flight and may be paid twice", ended.err)
    assert told is not None
    assert 1 <= again <= int(told[1])
