"""Runs on a real Ray cluster of two nodes: one is killed, all are drained, and what does not go is said first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import KEYS, Api, api, prompts, run_words, write_rows
from real import needs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
RATE = 50.0


def on_a_cluster(*calls: Mapping[str, Any]) -> Any:
    """What came of runs on a cluster of their own."""
    needs.ray()
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ray_cluster.py")],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in KEYS and "BATCHRUNNER" not in name},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def words(rows: Path, server: Api, run: Path, *more: object) -> list[str]:
    given = run_words(rows, server.url, "--rpm", RATE * 60, "--out", run, *more)
    return [str(word) for word in given]


def arrivals(server: Api) -> list[float]:
    return sorted(datetime.fromisoformat(line["time"]).timestamp() for line in server.seen())


def within(times: Sequence[float], start: float, seconds: float) -> float:
    """The share of the rate that was used in so many seconds."""
    return len([at for at in times if start <= at < start + seconds]) / (RATE * seconds)


def test_a_killed_node_costs_what_was_in_flight_on_it_and_no_more(tmp_path: Path):
    count = 2_000
    rows, run = write_rows(tmp_path / "rows.jsonl", prompts(count)), tmp_path / "run"
    with api(tmp_path / "log", latency=0.3) as server:
        told = on_a_cluster({"words": words(rows, server, run, "--workers", 2), "kill_at": 700})
        asked, answered, times = server.seen(), server.answered(), arrivals(server)

    (came,) = told["came"]
    lines, killed_at = came["lines"], came["killed_at"]
    summary = lines[-1]
    assert (came["code"], came["strange"]) == (0, []), came["err"]
    assert summary["items"]["succeeded"] == count
    table = pl.read_parquet(summary["results"])
    assert table["row"].to_list() == list(range(count))

    # Asked twice: at most what was in flight, all of it of the one shard.
    again = sum(answered.values()) - count
    in_flight = [line["in_flight"] for line in lines if line["type"] == "progress"]
    assert len(answered) == count
    assert 0 < again <= max(in_flight)
    assert len(asked) <= count + max(in_flight)
    assert [line for line in lines if "is lost, another will take the shard up" in line.get("message", "")]

    # Before the loss both use up the rate together; after it, but for the slice that is lost, the one that is left.
    before, after = within(times, killed_at - 8, 8), within(times, killed_at + 2, 8)
    seconds = Counter(int(at - times[0]) for at in times)
    busiest = max(seconds.values())
    print("killed after", killed_at - times[0], "by second", [seconds[at] for at in range(max(seconds) + 1)])
    print(f"{before:.3f} of the rate before, {after:.3f} after, {busiest} in the busiest second, {again} asked again")
    assert 0.98 <= before <= 1.0
    assert 0.98 <= after <= 1.0
    assert busiest <= RATE + 2
    assert max(within(times, at, 10) for at in times) <= 1.01


def test_a_drained_run_goes_on_where_it_was_and_no_key_is_kept(tmp_path: Path):
    rows, run, key = write_rows(tmp_path / "rows.jsonl", prompts(400)), tmp_path / "run", "sk-kept-by-nobody-48151"
    with api(tmp_path / "log", latency=0.3) as server:
        call = {
            "words": words(rows, server, run, "--workers", 2, "--set", "provider.api_key=env:SOME_KEY"),
            "env": {"SOME_KEY": key},
        }
        other = {**call, "words": words(rows, server, run, "--workers", 3)}
        told = on_a_cluster({**call, "signal_at": 100}, call, other)
        answered = server.answered()

    drained, resumed, refused = told["came"]
    assert drained["code"] == 143, drained["err"]
    assert drained["lines"][-1]["retryable"]
    assert drained["lines"][-1]["items"]["unfinished"] > 0
    assert resumed["code"] == 0, resumed["err"]
    assert resumed["lines"][0]["message"].startswith(f"resuming {run}: ")
    assert resumed["lines"][-1]["now"]["settled_before"] >= 100
    assert (len(answered), sum(answered.values())) == (400, 400)
    assert refused["code"] == 10
    assert "give --workers 2" in refused["lines"][-1]["reason"]
    assert told["leaked"] == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a disk of one's own needs root")
def test_a_directory_that_is_not_shared_is_a_fault_before_anything_is_sent(tmp_path: Path):
    rows, own = write_rows(tmp_path / "rows.jsonl", prompts(10)), tmp_path / "own"
    own.mkdir()
    with api(tmp_path / "log") as server:
        script = f'mount -t tmpfs none {own} && exec "$@"'
        call = {
            "words": words(rows, server, own / "run", "--workers", 2),
            "under": ["unshare", "--mount", "sh", "-c", script, "sh"],
        }
        told = on_a_cluster(call)
        asked = server.seen()

    (came,) = told["came"]
    assert came["code"] == 2, came
    assert "is not the driver's (no such file or directory); give an --out on a file system" in came["err"]
    assert asked == []
