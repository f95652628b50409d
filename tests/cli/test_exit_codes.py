"""Every fault has its exit code and one clear sentence, and nothing is sent."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows
from faulty_server import serve_in_thread

from batchrunner.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", prompts(40))


@pytest.mark.parametrize(
    ("provider", "status", "path"), [("tess", 403, ""), ("openai", 401, "/v1"), ("gateway", 401, "")]
)
def test_a_dead_key_ends_the_run_after_three_requests(rows, provider, status, path):
    body = {"error": "Invalid authentication"} if provider == "tess" else {"error": {"message": "Incorrect API key"}}
    with serve_in_thread() as server:
        server.default = lambda seen: {"status": status, "body_json": body}
        url, words = server.url + path, ["--agent-id", 1] if provider == "tess" else ["--model", "m"]

        ended = batchrunner(
            "run", rows, "--provider", provider, "--base-url", url, *words, "--json",
            env={f"{provider.upper()}_API_KEY": "sk-dead-key-0123456789"},
        )  # fmt: skip

        assert ended.code == 12, ended.err
        assert len(server.seen) <= 3
    assert f"{provider.upper()}_API_KEY" in ended.summary["reason"]
    assert "0123456789" not in ended.out + ended.err
    assert ended.summary["items"]["unfinished"] == 40


def test_unknown_keys_are_all_named_with_what_was_meant(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('name = "x"\n[input]\npath = "rows.jsonl"\n[limits]\nconcurency = 4\nrequests_per_minute = -5\n')

    ended = batchrunner("run", job)

    assert ended.code == 2
    assert "did you mean 'concurrency'?" in ended.err
    assert "limits.requests_per_minute: expected a number above 0, got -5" in ended.err
    assert "Traceback" not in ended.err


def test_a_template_name_that_no_row_has_is_a_fault(tmp_path, rows):
    job = tmp_path / "job.toml"
    job.write_text(
        'input.path = "rows.jsonl"\nprovider.kind = "tess"\n'
        'request = { agent_id = 1, prompt = "{{ promt }} {{ body }}" }\n'
    )

    ended = batchrunner("run", job, "--simulate")

    assert ended.code == 2
    assert "'promt'" in ended.err
    assert "did you mean 'prompt'?" in ended.err
    assert "'body'" in ended.err


def test_duplicate_ids_are_a_fault_that_names_them(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [*prompts(5), {"id": "p3", "prompt": "again"}])

    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9"))

    assert ended.code == 2
    assert "'p3'" in ended.err


def test_no_matching_file_is_a_fault(tmp_path):
    ended = batchrunner(*run_words(tmp_path / "nothing*.jsonl", "http://127.0.0.1:9"))

    assert ended.code == 2
    assert "nothing*.jsonl" in ended.err


def test_a_missing_key_says_where_it_was_looked_for(rows):
    ended = batchrunner("run", rows, "--provider", "tess", "--agent-id", 1)

    assert ended.code == 2
    assert "TESS_API_KEY" in ended.err
    assert "cron" in ended.err


def test_an_unwritable_output_is_refused_before_anything_is_sent(tmp_path, rows):
    (tmp_path / "file").write_text("")

    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9", "--out", tmp_path / "file" / "run"))

    assert ended.code == 10
    assert "Traceback" not in ended.err


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path, rows):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")

    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9", "--out", tmp_path / "precious"))

    assert ended.code == 10
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_second_process_is_refused_and_can_wait(tmp_path, rows):
    with api(tmp_path / "api.jsonl", latency=0.4) as tess:
        words = run_words(rows, tess.url, "--out", tmp_path / "run", "--concurrency", 4)
        first = start(*words)
        _wait_for(tmp_path / "run" / "run.json")

        second = batchrunner(*words)
        third = batchrunner(*words, "--wait-lock", "40s")

        assert finish(first).code == 0
    assert second.code == 11
    assert str(first.pid) in second.err
    assert third.code == 0
    assert len(tess.seen()) == 40


def test_a_budget_stops_and_stays_stopped(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(200))
    with api(tmp_path / "api.jsonl") as server:
        words = [
            "run", rows, "--provider", "openai", "--model", "gpt-4o-mini", "--base-url", server.openai,
            "--max-cost", "0.001", "--set", "request.max_tokens=100", "--json", "--rpm", "none",
        ]  # fmt: skip
        ended = batchrunner(*words)
        again = batchrunner(*words)

    assert ended.code == again.code == 17, ended.err
    assert 0 < ended.summary["cost_usd"] <= 0.001
    assert again.summary["now"]["sent"] == 0


def test_what_fits_into_a_budget_once_other_things_are_asked_is_bought(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(6))
    with api(tmp_path / "api.jsonl") as server:
        words = [
            *("run", rows, "--provider", "openai", "--model", "gpt-4o-mini", "--base-url", server.openai),
            *("--max-cost", "0.002", "--json", "--rpm", "none", "--set"),
        ]
        ended = batchrunner(*words, "request.max_tokens=4000")
        again = batchrunner(*words, "request.max_tokens=4000")
        smaller = batchrunner(*words, "request.max_tokens=10", "--accept-change")

    assert [ended.code, again.code, smaller.code] == [17, 17, 0], smaller.err


def test_an_unknown_price_with_a_cap_on_money_is_a_fault(rows):
    ended = batchrunner(
        "run",
        rows,
        "--provider",
        "openai",
        "--model",
        "no-such-model",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--max-cost",
        1,
    )

    assert ended.code == 2
    assert "no-such-model" in ended.err


def test_a_deadline_drains_and_helps(tmp_path, rows):
    with api(tmp_path / "api.jsonl", latency=0.2) as tess:
        words = run_words(rows, tess.url, "--concurrency", 2)
        ended = batchrunner(*words, "--deadline", "1s", "--json")
        rest = batchrunner(*words)

        assert ended.code == 14, ended.err
        assert 0 < ended.summary["items"]["succeeded"] < 40
        assert rest.code == 0
        assert len(tess.seen()) == 40


def test_a_server_that_is_down_ends_the_run(rows):
    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9", "--set", "retry.down_s=1", "--json"))

    assert ended.code == 15, ended.err
    assert ended.summary["retryable"] is True
    assert ended.summary["items"]["unfinished"] == 40


def test_exhausted_items_exit_4_and_are_tried_again(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(10))
    with serve_in_thread() as server:
        server.default = lambda seen: {"status": 500, "body_json": {}} if b"Say p 3" in seen.body else _answer()
        words = run_words(rows, server.url, "--set", "retry.attempts=2")
        ended = batchrunner(*words, "--json")
        server.default = lambda seen: _answer()
        again = batchrunner(*words, "--json")

    assert ended.code == 4, ended.err
    assert ended.summary["failed_by_type"]["server"]["first_id"] == "p3"
    assert again.code == 0
    assert again.summary["now"]["sent"] == 1


def test_rejected_items_exit_3_unless_they_are_allowed(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(10))
    refusal = {"status": 400, "body_json": {"error": {"code": "content_filter", "message": "no"}}}
    with serve_in_thread() as server:
        server.default = lambda seen: refusal if b"Say p 3" in seen.body else _answer()
        words = run_words(rows, server.url)
        ended, allowed = batchrunner(*words), batchrunner(*words, "--max-failed", "10%")

    assert ended.code == 3
    assert allowed.code == 0
    assert len(server.seen) == 10


@pytest.mark.slow
def test_a_closed_stdout_does_not_end_the_run(tmp_path, rows):
    with api(tmp_path / "api.jsonl", latency=0.2) as tess:
        process = start(*run_words(rows, tess.url, "--out", tmp_path / "run"))
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()

        assert process.wait(30) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"


def test_an_empty_input_with_a_readable_schema_is_finished(tmp_path):
    (tmp_path / "rows.csv").write_text("id,prompt\n")

    ended = batchrunner(*run_words(tmp_path / "rows.csv", "http://127.0.0.1:9"))

    assert ended.code == 0, ended.err
    assert len(ended.table()) == 0

    skipped = batchrunner(*run_words(tmp_path / "rows.csv", "http://127.0.0.1:9", "--json", "--skip-exit-code", 99))
    assert skipped.code == 99, skipped.err
    assert (skipped.summary["type"], skipped.summary["exit"]) == ("finished", 99)
    assert (skipped.summary["reason"], skipped.summary["retryable"]) == ("the input has no rows", False)
    assert skipped.summary["results"] == ended.last_line


@pytest.mark.slow
def test_only_an_empty_input_is_skipped_not_what_is_settled_and_not_a_shard_without_rows(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    with api(tmp_path / "api.jsonl") as tess:
        words = [*run_words(rows, tess.url, "--skip-exit-code", 99), "--json"]
        first, again = batchrunner(*words), batchrunner(*words)
        shards = [batchrunner(*words, "--out", tmp_path / "out", "--shard", f"{n}/3") for n in range(3)]

    assert [first.code, again.code, *(one.code for one in shards)] == [0] * 5, first.err
    assert sorted(one.summary["items"]["total"] for one in shards) == [0, 0, 1]
    merged = batchrunner("merge", tmp_path / "out")
    assert merged.code == 0, merged.err
    assert len(merged.table()) == 1


@pytest.mark.parametrize("code", [0, 2, 11, 143, 256])
def test_a_code_that_means_something_else_is_no_skip_code(code):
    result = CliRunner().invoke(run.command, ["rows.jsonl", "--skip-exit-code", str(code)])

    assert result.exit_code == 2
    assert "--skip-exit-code" in result.output


def _answer() -> dict[str, object]:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
    return {"status": 200, "body_json": {"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}}


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def _wait_for_requests(server: object, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(server.seen()) < count:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "no requests came"
