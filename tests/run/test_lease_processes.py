"""Processes of one host that share an allowance by a lease file: real runs, counted at the server."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from driving import Api, api, batchrunner, finish, prompts, run_words, start, write_rows

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = 4


def arrivals(server: Api) -> list[float]:
    """When each request came, in seconds since the first."""
    times = sorted(datetime.fromisoformat(line["time"]).timestamp() for line in server.seen())
    return [at - times[0] for at in times]


def most_within(times: list[float], seconds: float) -> int:
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def words(rows: Path, server: Api, shard: int, lease: Path, *more: object) -> list[object]:
    return [
        *run_words(rows, server.url, "--rpm", 6_000, "--shard", f"{shard}/{SHARDS}", "--lease", lease, "--quiet"),
        *more,
    ]


@pytest.mark.slow
def test_two_processes_share_one_allowance(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(300))
    with api(tmp_path / "log", latency=0.05) as server:
        began = [
            start(*run_words(rows, server.url, "--rpm", 12_000, "--shard", f"{n}/2", "--lease", tmp_path / "lease"))
            for n in range(2)
        ]
        codes = [finish(process).code for process in began]
        times = arrivals(server)

    assert codes == [0, 0]
    assert len(times) == 300
    assert times[-1] >= 0.95 * 300 / 200


@pytest.mark.slow
def test_four_shards_keep_to_the_limit_and_use_it_up(tmp_path: Path):
    rate, count = 100.0, 3_000
    rows = write_rows(tmp_path / "rows.jsonl", prompts(count))
    with api(tmp_path / "log", latency=0.2) as server:
        began = [start(*words(rows, server, n, tmp_path / "lease")) for n in range(SHARDS)]
        ended = [finish(process) for process in began]
        times = arrivals(server)

    middle = [at for at in times if 5.0 <= at < 25.0]
    used = len(middle) / (20.0 * rate)
    most = [most_within(times, seconds) for seconds in (1, 10)]
    print(f"{used:.4f} of the limit; most in any 1 and 10 s: {most}; longest gap {longest_gap(middle):.3f} s")
    assert [each.code for each in ended] == [0] * SHARDS, [each.err for each in ended if each.code]
    assert len(times) == count
    assert 0.98 <= used <= 1.0
    # What is a little late is made up for, by a few at once: none of them is one too many for long.
    assert most[0] <= rate + 6
    assert most[1] <= 10 * rate + 4


@pytest.mark.slow
def test_a_killed_process_leaves_its_share_to_the_others(tmp_path: Path):
    rate = 100.0
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3_000))
    with api(tmp_path / "log", latency=0.2) as server:
        began = [start(*words(rows, server, n, tmp_path / "lease")) for n in range(SHARDS)]
        time.sleep(10)
        began[0].send_signal(signal.SIGKILL)
        killed_after = time.time()
        codes = [finish(process).code for process in began]
        lines = server.seen()
        again = batchrunner(*words(rows, server, 0, tmp_path / "lease"))
        answered = server.answered()

    times = sorted(datetime.fromisoformat(line["time"]).timestamp() for line in lines)
    after = [at for at in times if killed_after <= at < killed_after + 10]
    print(f"{len(after) / (10 * rate):.4f} of the limit in the ten seconds after, gap {longest_gap(after):.3f}")
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    assert 0.96 <= len(after) / (10 * rate) <= 1.0
    assert again.code == 0
    assert len(answered) == 3_000
    assert sum(answered.values()) - 3_000 <= 100


def longest_gap(times: list[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times))
