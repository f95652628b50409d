"""Requests that went out and brought no answer are counted over the whole life of a run."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

from driving import batchrunner, finish, prompts, run_words, start, write_rows
from faulty_server import completion, serve_in_thread

from batchrunner.assemble import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

CUT = {"status": 200, "headers": {"Content-Type": "application/json"}, "body": '{"choices": [', "end": "cut"}


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_may_be_billed_adds_up_over_interrupted_killed_and_finished_invocations(tmp_path):
    run, rows = tmp_path / "run", write_rows(tmp_path / "rows.jsonl", prompts(10))
    with serve_in_thread() as server:
        words = run_words(rows, server.url, "--out", run, "--grace", "0.2s")
        server.default = {"status": 200, "end": "hang"}

        given_up = start(*words, "--json")
        until(lambda: server.in_flight == 3)
        given_up.send_signal(signal.SIGTERM)
        first = finish(given_up)

        killed = start(*words)
        until(lambda: json.loads((run / "run.json").read_text())["state"] == "running" and server.in_flight == 3)
        killed.kill()
        finish(killed)

        server.default = completion
        server.replies.append(CUT)
        last = batchrunner(*words)

    after = state_of(run)
    assert (first.summary["possibly_billed"], first.summary["now"]["possibly_billed"]) == (3, 3)
    assert last.code == 0, last.err
    assert last.table()["possibly_billed"].sum() == 1
    assert (after["possibly_billed"], after["now"]["possibly_billed"]) == (4, 1)
    assert [entry["possibly_billed"] for entry in after["history"]] == [3, 1]
    assert "4 requests went out, no answer came: maybe billed (1 now)" in last.err
