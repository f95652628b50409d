"""Looking at a run without touching it: plan, status, show, export."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from pathlib import Path

import polars as pl
import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows
from faulty_server import serve_in_thread


@pytest.fixture
def finished(tmp_path):
    """A finished run of 30 items, one of them refused, and the words that made it."""
    rows = write_rows(tmp_path / "rows.jsonl", prompts(30, topic="tea"))
    choices = [{"index": 0, "message": {"role": "assistant", "content": "=hi\x1b[2J"}, "finish_reason": "stop"}]
    good = {"status": 200, "body_json": {"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 7}}}
    refusal = {"status": 400, "body_json": {"error": {"code": "content_filter", "message": "not this one"}}}
    with serve_in_thread() as server:
        server.default = lambda seen: refusal if b"Say p 7" in seen.body else good
        words = ["--provider", "openai", "--model", "gpt-4o-mini", "--base-url", f"{server.url}/v1"]
        ended = batchrunner("run", rows, *words, "--out", tmp_path / "run")
        assert ended.code == 3, ended.err
        yield rows, words, tmp_path / "run"


def test_plan_counts_prices_and_sends_nothing(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(600))
    words = ["--provider", "openai", "--model", "gpt-4o-mini", "--base-url", "http://127.0.0.1:9/v1", "--rpm", 60]

    plan = json.loads(batchrunner("plan", rows, *words, "--json").out)

    assert plan["items"] == {"total": 600, "settled": 0, "to_buy": 600}
    assert plan["time_s"] == pytest.approx(600)
    assert 0 < plan["estimate"]["cost_usd"] < plan["estimate"]["cost_usd_at_most"]
    assert json.loads(plan["requests"][0]["body"])["messages"][0]["content"] == "Say p 0"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_plan_is_calibrated_by_what_is_settled(finished):
    rows, words, run = finished
    write_rows(rows, prompts(60))

    plan = json.loads(batchrunner("plan", rows, *words, "--out", run, "--json").out)

    assert plan["items"] == {"total": 60, "settled": 30, "to_buy": 30}
    assert plan["estimate"]["calibrated"] is True
    assert plan["estimate"]["completion_tokens"] == pytest.approx(30 * 7, rel=0.2)


def test_plan_names_bad_rows_with_their_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n{"text": "b"}\n{oops\n')

    ended = batchrunner("plan", rows, "--provider", "tess", "--agent-id", 1, "--simulate")

    assert ended.code == 0
    assert "line 2" in ended.out
    assert "line 3" in ended.out


def test_plan_diff_shows_what_was_asked_and_what_is_asked_now(finished):
    rows, words, run = finished

    ended = batchrunner("plan", rows, *words, "--out", run, "--diff", "--set", "request.temperature=0.5")

    assert ended.code == 13
    assert "request.temperature" in ended.out
    assert "30 settled items would be bought again" in ended.out


def test_status_tells_the_counts_from_the_files(finished):
    *_, run = finished

    state = json.loads(batchrunner("status", run, "--json").out)

    assert state["state"] == "finished"
    assert state["items"]["succeeded"] == 29
    assert state["failed_by_type"]["content_filter"] == {
        "count": 1, "status": "rejected", "first_id": "p7", "first_row": 7, "first_error": "400 not this one",
    }  # fmt: skip
    assert state["history"][-1]["exit"] == 3


@pytest.mark.slow
def test_status_follows_a_live_run_and_knows_a_dead_one(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(300))
    with api(tmp_path / "api.jsonl", latency=0.3) as tess:
        process = start(*run_words(rows, tess.url, "--out", tmp_path / "run", "--concurrency", 5))
        deadline = time.monotonic() + 20
        while not (tmp_path / "run" / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.5)
        live = json.loads(batchrunner("status", tmp_path / "run", "--json").out)
        partial = batchrunner("export", tmp_path / "run", "--format", "jsonl", "--where", "status = 'succeeded'")
        process.send_signal(signal.SIGKILL)
        finish(process)
        dead = batchrunner("status", tmp_path / "run")

    assert (live["state"], live["alive"]) == ("running", True)
    assert 0 < live["items"]["succeeded"] < 300
    assert len(partial.out.splitlines()) > 0
    assert live["heartbeat_age_s"] < 10
    assert "dead since " in dead.out
    assert dead.out.splitlines()[-1].startswith("next     batchrunner run ")


def test_show_failed_tells_what_was_sent_and_what_came_back(finished):
    *_, run = finished

    ended = batchrunner("show", run, "--failed")

    assert ended.out.count("===") == 1
    assert "p7" in ended.out
    assert "Say p 7" in ended.out
    assert "content_filter (400): 400 not this one" in ended.out


def test_show_cannot_be_used_to_steer_the_terminal(finished):
    *_, run = finished

    assert "\x1b" not in batchrunner("show", run, "p1", "--full").out


def test_show_says_when_an_id_is_not_there(finished):
    *_, run = finished

    ended = batchrunner("show", run, "nobody")

    assert ended.code == 2
    assert "no item 'nobody'" in ended.err


@pytest.mark.slow
def test_exports_hold_every_row_in_every_format(finished, tmp_path):
    *_, run = finished

    lines = [json.loads(line) for line in batchrunner("export", run).out.splitlines()]
    cells = list(csv.DictReader(io.StringIO(batchrunner("export", run, "--format", "csv").out)))
    ended = batchrunner("export", run, "--format", "parquet", "--to", tmp_path / "copy.parquet")

    assert [line["item_id"] for line in lines] == [f"p{n}" for n in range(30)]
    assert [cell["topic"] for cell in cells] == ["tea"] * 30
    assert cells[0]["text"].startswith("'=hi")
    copy, results = pl.read_parquet(ended.last_line), pl.read_parquet(run / "results.parquet")
    assert copy.equals(results)


def test_a_bad_expression_names_the_column_that_was_meant(finished):
    *_, run = finished

    ended = batchrunner("export", run, "--where", "statis = 'succeeded'")

    assert ended.code == 2
    assert "did you mean 'status'?" in ended.err


def test_a_path_without_a_run_is_refused(tmp_path):
    for words in (["status", tmp_path], ["show", Path("nowhere")], ["export", tmp_path / "x"]):
        assert batchrunner(*words).code == 10


def test_a_path_that_is_nearly_one_names_it(tmp_path):
    (tmp_path / "tickets.simulated").mkdir()

    ended = batchrunner("status", tmp_path / "ticket.simulated")

    assert ended.code == 10
    assert f"did you mean {tmp_path / 'tickets.simulated'}?" in ended.err


def test_an_export_replaces_nothing_that_a_run_is_made_of(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2))
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "old.jsonl").write_text("old")
    words = ["run", rows, "--provider", "openai", "--model", "m", "--simulate", "--out", tmp_path / "run"]
    run = Path(batchrunner(*words).last_line).parent
    wrong = (rows, tmp_path / "mine.toml", run / "run.json", run / "results.parquet")
    before = [path.read_bytes() for path in wrong]

    codes = [batchrunner("export", run, "--to", path).code for path in wrong]
    replaced = batchrunner("export", run, "--to", tmp_path / "old.jsonl")

    assert codes == [2] * 4
    assert [path.read_bytes() for path in wrong] == before
    assert (replaced.code, len((tmp_path / "old.jsonl").read_text().splitlines())) == (0, 2)
