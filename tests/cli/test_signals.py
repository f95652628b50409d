"""Signals: what drains, what stops, what each moment of a run makes of them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", prompts(40))


def test_a_signal_before_anything_was_sent_has_its_code_and_its_object(tmp_path):
    process = start("run", "-", "--provider", "openai", "--model", "m", "--json", cwd=tmp_path, stdin=subprocess.PIPE)
    _until(lambda: _catches(process, signal.SIGTERM))
    process.send_signal(signal.SIGTERM)

    ended = finish(process)

    assert ended.code == 143, ended.err
    assert ended.summary["type"] == "fatal"
    assert ended.summary["exit"] == 143
    assert ended.summary["retryable"]
    assert ended.summary["reason"] == "interrupted by SIGTERM before anything was sent"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_drains_and_nothing_is_paid_twice(tmp_path, number, code):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(90))
    with api(tmp_path / "api.jsonl", latency=0.3) as tess:
        words = run_words(rows, tess.url, "--concurrency", 8, "--json")
        process = start(*words)
        _until(lambda: len(tess.seen()) >= 15)
        process.send_signal(number)
        drained = finish(process)
        rest = batchrunner(*words)

        assert drained.code == code, drained.err
        assert rest.code == 0
        assert len(tess.seen()) == 90
    assert drained.summary["possibly_billed"] == 0


@pytest.mark.parametrize("apart_s", [0.0, 0.05])
def test_two_signals_in_a_row_still_end_with_the_summary_and_the_code(tmp_path, rows, apart_s):
    process = start(*run_words(rows, "http://127.0.0.1:9", "--out", tmp_path / "run", "--json"))
    _until((tmp_path / "run" / "run.json").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(apart_s)
    process.send_signal(signal.SIGINT)

    ended = finish(process)

    assert ended.code == 130, ended.err
    assert ended.summary["exit"] == 130
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "drained"


def test_after_the_grace_those_in_flight_are_given_up_and_counted(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(20))
    with api(tmp_path / "api.jsonl", stall_rate=1) as tess:
        process = start(*run_words(rows, tess.url, "--grace", "1s", "--json"))
        _until(lambda: len(tess.seen()) >= 3)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ended = finish(process)

    assert ended.code == 143
    assert time.monotonic() - began < 4
    assert ended.summary["possibly_billed"] == 3


def _catches(process: subprocess.Popen[str], number: int) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def _until(came: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not came():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.02)
