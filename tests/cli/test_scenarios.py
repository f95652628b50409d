"""Servers that misbehave, met by a whole run: what was sent, what stands in the table, how it ends."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from driving import batchrunner, prompts, run_words, write_rows
from faulty_server import serve_in_thread

GOOD: dict[str, Any] = {
    "status": 200,
    "body_json": {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    },
}
STREAM: dict[str, Any] = {
    "status": 200,
    "headers": {"Content-Type": "text/event-stream"},
    "body": 'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
}


@pytest.fixture
def server():
    with serve_in_thread() as running:
        running.default = lambda seen: GOOD
        yield running


def openai_words(rows: Any, url: str, *more: object) -> list[object]:
    return ["run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{url}/v1", "--json", *more]


def test_a_refused_stream_option_is_left_out_from_then_on(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(10, stream=True))
    refusal = {"error": {"message": "Unrecognized request argument supplied: stream_options"}}
    server.default = lambda seen: {"status": 400, "body_json": refusal} if b"stream_options" in seen.body else STREAM

    ended = batchrunner(*openai_words(rows, server.url))

    assert ended.summary["items"]["succeeded"] == 10, ended.err
    assert sum(b"stream_options" in seen.body for seen in server.seen) <= 3
    changes = pl.read_parquet(ended.summary["results"])["sent_changes"]
    assert set(changes) == {"without stream_options"}


def test_a_rows_own_missing_agent_is_not_asked_for_ever(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [{**row, "agent_id": n % 2 + 1} for n, row in enumerate(prompts(40))])
    missing = {"status": 404, "body_json": {"error": "Agent not found"}}
    server.default = lambda seen: missing if "/agents/1/" in seen.path else GOOD

    ended = batchrunner("run", rows, "--provider", "tess", "--base-url", server.url, "--rpm", "none", "--json")

    assert ended.summary["exit"] == 3, ended.err
    assert ended.summary["items"]["succeeded"] == 20
    assert ended.summary["failed_by_type"]["not_found"]["count"] == 20
    # Those in flight when the second refusal comes have been sent already.
    assert sum("/agents/1/" in seen.path for seen in server.seen) <= 4


def test_a_missing_agent_of_the_job_ends_the_run(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(40))
    server.default = lambda seen: {"status": 404, "body_json": {"error": "Agent not found"}}

    ended = batchrunner(*run_words(rows, server.url, "--json"))

    assert ended.code == 12
    assert len(server.seen) <= 3
    assert ended.summary["items"]["unfinished"] == 40


@pytest.mark.parametrize(
    ("reply", "code", "most"),
    [
        ({"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>Sign in</html>"}, 15, 8),
        ({"status": 422, "body_json": {"detail": [{"loc": ["body", "x"], "msg": "Field required"}]}}, 12, 100),
        ({"status": 429, "body_json": {"error": {"code": "insufficient_quota", "message": "quota"}}}, 12, 8),
        ({"status": 429, "headers": {"Retry-After": "86400"}, "body_json": {}}, 15, 8),
        ({"status": 503, "body": ""}, 15, 8),
    ],
    ids=["pages", "same refusal", "quota", "come back tomorrow", "down"],
)
def test_trouble_that_hits_every_request_ends_the_run_and_blames_no_item(tmp_path, server, reply, code, most):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2_000))
    server.default = lambda seen: reply

    ended = batchrunner(*openai_words(rows, server.url, "--set", "retry.down_s=2"))

    assert ended.code == code, ended.err
    assert len(server.seen) <= most
    assert ended.summary["items"]["unfinished"] == 2_000


def test_a_redirect_is_not_followed_and_its_target_sees_nothing(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(10))
    with serve_in_thread() as other:
        server.default = lambda seen: {"status": 307, "headers": {"Location": f"{other.url}/steal"}, "body": ""}

        ended = batchrunner(*openai_words(rows, server.url), env={"OPENAI_API_KEY": "sk-canary-0123456789"})

        assert other.seen == []
    assert ended.code == 12
    assert "redirect" in ended.summary["reason"]


def test_a_session_that_the_gateway_does_not_know_is_dropped_then_retried(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3, session_id="0xabc"))
    gone = {"status": 400, "body_json": {"error": {"message": "Session expired", "type": "session_expired"}}}
    server.default = lambda seen: gone if b"session_id" in seen.body else GOOD

    ended = batchrunner("run", rows, "--provider", "gateway", "--base-url", server.url, "--json")

    assert ended.summary["items"]["succeeded"] == 3, ended.err
    assert server.max_in_flight == 1


def test_a_session_error_without_a_session_is_ordinary_trouble(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    none = {"status": 400, "body_json": {"error": {"message": "no session", "type": "session_not_found"}}}
    server.default = lambda seen: none

    ended = batchrunner(
        "run", rows, "--provider", "gateway", "--base-url", server.url, "--set", "retry.attempts=2", "--json"
    )

    assert ended.code == 4
    assert len(server.seen) == 2


def test_a_hint_longer_than_the_items_time_is_not_slept_out(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    server.default = lambda seen: {"status": 429, "headers": {"Retry-After": "30"}, "body_json": {}}

    ended = batchrunner(*openai_words(rows, server.url, "--set", "timeouts.item_s=10"))

    assert ended.summary["exit"] == 4
    assert ended.summary["now"]["seconds"] < 5
    assert ended.summary["failed_by_type"]["rate_limit"]["count"] == 1


def test_a_key_stands_in_no_file_and_no_output(tmp_path, server):
    canary = "sk-canary-4711-abcdefghij"
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))
    echo = {"status": 400, "body_json": {"error": {"message": f"bad thing with {canary} and Bearer {canary}"}}}
    server.default = lambda seen: echo if b"Say p 3" in seen.body else GOOD

    ended = batchrunner(*openai_words(rows, server.url), env={"OPENAI_API_KEY": canary})

    assert ended.code == 3
    assert server.seen[0].headers["authorization"] == f"Bearer {canary}"
    assert canary not in ended.out + ended.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if canary.encode() in path.read_bytes()] == []
    texts = pl.read_parquet(ended.summary["results"]).select(pl.col(pl.String)).to_dicts()
    assert canary not in str(texts)
