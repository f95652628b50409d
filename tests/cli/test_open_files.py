"""The limit of open files: kept to where it is known, backed off from where it is met all the same."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import finish, prompts, run_words, start, write_rows
from faulty_server import completion, serve_in_thread
from real import needs

if TYPE_CHECKING:
    from faulty_server import Reply, Seen


@pytest.fixture(autouse=True)
def prlimit():
    if shutil.which("prlimit") is None:
        needs.lacking("prlimit", "apt-get install -y util-linux")


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == name]


def test_a_low_limit_caps_the_concurrency_and_fails_nothing(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(150))
    with serve_in_thread() as server:
        server.latency_s = 0.05
        words = run_words(rows, server.url, "--concurrency", 200, "--out", tmp_path / "run")
        ended = finish(start(*words, under=["prlimit", "--nofile=64:64"]))

    assert ended.code == 0, ended.err
    assert set(ended.table()["attempts"]) == {1}
    assert len(server.seen) == 150
    (capped,) = events(tmp_path / "run", "concurrency_capped")
    assert 1 <= capped["concurrency"] < 64
    assert server.connections <= capped["concurrency"]
    assert "limits.concurrency is held at" in ended.err
    assert events(tmp_path / "run", "concurrency_cut") == []


@pytest.mark.slow
def test_a_limit_that_is_met_all_the_same_costs_time_and_no_attempt(tmp_path):
    """Lowered from outside when the first request arrives: most connections of the run cannot be opened."""
    rows = write_rows(tmp_path / "rows.jsonl", prompts(150))
    with serve_in_thread() as server:
        words = run_words(rows, server.url, "--concurrency", 30, "--out", tmp_path / "run", "--json")
        server.latency_s = 0.05
        process = start(*words)
        once = threading.Lock()

        def lower_the_limit(seen: Seen) -> Reply:
            if once.acquire(blocking=False):
                newest = max(int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir())
                hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (newest + 12, hard))
            return completion(seen)

        server.default = lower_the_limit
        ended = finish(process)

    assert ended.code == 0, ended.err
    assert set(pl.read_parquet(ended.summary["results"])["attempts"]) == {1}
    assert len(server.seen) == 150
    assert ended.summary["now"]["sent"] == 150
    assert "limit of open files" in events(tmp_path / "run", "concurrency_cut")[0]["error"]
    assert len(events(tmp_path / "run", "lane_paused")) < 20


def test_a_limit_that_is_too_low_for_a_run_is_said_before_anything_is_sent(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    words = run_words(rows, "http://127.0.0.1:9", "--out", tmp_path / "run", "--json")

    ended = finish(start(*words, under=["prlimit", "--nofile=22:22"]))

    assert ended.code == 10, ended.err
    assert "this process may have 22 open files" in ended.summary["reason"]
    assert ended.summary["now"]["sent"] == 0
