"""Servers that misbehave, met by a whole run: what was sent, what stands in the table, how it ends."""

from __future__ import annotations

import fcntl
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from driving import api, batchrunner, prompts, run_words, write_rows
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
    # Told once, all items of the session know.
    assert len(server.seen) == 4
    changes = pl.read_parquet(ended.summary["results"])["sent_changes"]
    assert set(changes) == {"without session_id"}


@pytest.mark.parametrize(
    ("more", "keys", "most"),
    [((), 1, 1), (("--set", "provider.requests_per_key=3"), 1, 3), ((), 2, 2)],
    ids=["one key", "lifted", "two keys"],
)
def test_the_gateway_has_no_two_requests_in_flight_on_one_key(tmp_path, server, more, keys, most):
    """Concurrent requests on one of its keys can get each other's answers; --concurrency alone lifts nothing."""
    rows = write_rows(tmp_path / "rows.jsonl", prompts(20))
    server.latency_s = 0.05
    names = [f"KEY_{number}" for number in range(keys)]
    words = ["run", rows, "--provider", "gateway", "--base-url", server.url, "--concurrency", 8, *more, "--json"]

    ended = batchrunner(
        *words,
        "--set",
        f"provider.api_key={[f'env:{name}' for name in names]}",
        env={name: f"sk-secret-{name}-0123456789" for name in names},
    )

    assert ended.summary["items"]["succeeded"] == 20, ended.err
    assert server.max_in_flight == most
    if not more:
        for key in {seen.headers["authorization"] for seen in server.seen}:
            at = [seen.at for seen in server.seen if seen.headers["authorization"] == key]
            assert all(later - earlier >= 0.05 for earlier, later in pairwise(at))


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


AZURE = ["--set", "provider.deployment=my gpt", "--set", "provider.api_version=2024-10-21"]


def azure_words(rows: Any, url: str, *more: object) -> list[object]:
    return ["run", rows, "--provider", "azure", "--base-url", url, "--json", *more]


def test_azure_is_asked_by_deployment_with_a_key_in_its_own_header(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))
    with api(tmp_path / "api.log") as running:
        ended = batchrunner(*azure_words(rows, running.url, *AZURE), env={"AZURE_OPENAI_API_KEY": "canary-4711"})
        seen = running.seen()

    assert ended.summary["items"]["succeeded"] == 5, ended.err
    assert {line["path"] for line in seen} == {"/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"}
    table = pl.read_parquet(ended.summary["results"])
    assert set(table["provider"]) == {"azure"}
    assert table["text"].null_count() == 0
    assert table["prompt_tokens"].min() > 0


def test_azure_s_key_goes_out_in_one_header_only(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    ended = batchrunner(*azure_words(rows, server.url, *AZURE), env={"AZURE_OPENAI_API_KEY": "canary-4711"})

    assert ended.code == 0, ended.err
    assert {seen.headers["api-key"] for seen in server.seen} == {"canary-4711"}
    assert not any("authorization" in seen.headers for seen in server.seen)


@pytest.mark.slow
def test_another_deployment_is_another_purchase_and_said_so(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))
    batchrunner(*azure_words(rows, server.url, *AZURE))

    same = batchrunner(*azure_words(rows, server.url, *AZURE))
    other = batchrunner(*azure_words(rows, server.url, *AZURE, "--set", "provider.deployment=other"))

    assert (same.code, other.code, len(server.seen)) == (0, 13, 5)
    assert "provider.deployment" in other.summary["reason"]


def test_azure_says_all_that_it_lacks_at_once(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))

    ended = batchrunner("run", rows, "--provider", "azure", "--simulate")

    assert ended.code == 2
    assert [f"provider.{name} is not set" in ended.err for name in ("base_url", "deployment", "api_version")] == [
        True
    ] * 3
    assert "'https://NAME.openai.azure.com'" in ended.err


def test_azure_without_deployment_and_version_sends_nothing(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    ended = batchrunner(*azure_words(rows, server.url))

    assert (ended.code, server.seen) == (2, [])
    assert "provider.deployment is not set" in ended.err + ended.out
    assert "provider.api_version is not set" in ended.err + ended.out


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


def test_a_dead_key_is_said_also_when_only_exhausted_items_are_left(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    server.default = lambda seen: {"status": 500, "body_json": {}} if b"Say p 1" in seen.body else GOOD
    assert batchrunner(*openai_words(rows, server.url, "--set", "retry.attempts=1")).code == 4
    server.default = lambda seen: {"status": 401, "body_json": {"error": {"message": "bad key"}}}

    ended = batchrunner(*openai_words(rows, server.url, "--max-failed", "5"))

    assert ended.code == 12
    assert ended.summary["retryable"] is False


def test_redo_means_the_item_even_when_the_input_has_moved(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(6))
    batchrunner(*openai_words(rows, server.url, "--out", tmp_path / "run"))
    write_rows(rows, [{"id": "new", "prompt": "first now"}, *prompts(6)])
    server.seen.clear()

    ended = batchrunner("redo", tmp_path / "run", "--where", "item_id = 'p3'", "--json", cwd=tmp_path.parent)

    assert ended.summary["exit"] == 0, ended.err
    assert [b"Say p 3" in seen.body for seen in server.seen] == [True]


@pytest.mark.slow
def test_redo_of_a_pilot_is_judged_by_what_it_redid(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(20))
    batchrunner(*openai_words(rows, server.url, "--limit", 5, "--out", tmp_path / "run"))

    ended = batchrunner("redo", tmp_path / "run", "--where", "row = 2", "--json")

    assert ended.summary["exit"] == 0, ended.err
    assert ended.summary["now"]["sent"] == 1


def test_a_cap_on_money_without_a_price_is_a_fault(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    ended = batchrunner(*run_words(rows, server.url, "--max-cost", "0.01"))

    assert ended.code == 2
    assert "price" in ended.err
    assert server.seen == []


@pytest.mark.slow
def test_a_rows_own_model_without_a_price_is_not_asked_under_a_cap(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [{**row, "model": "mystery-1"} for row in prompts(5)])
    words = ["run", rows, "--provider", "openai", "--base-url", f"{server.url}/v1", "--json"]

    ended = batchrunner(*words, "--max-cost", 1)

    assert ended.summary["exit"] == 3
    assert ended.summary["failed_by_type"]["bad_row"]["count"] == 5
    assert server.seen == []


@pytest.mark.slow
def test_items_of_a_missing_model_are_asked_again_once_it_exists(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [{**row, "model": "later"} for row in prompts(9)])
    missing = {"status": 404, "body_json": {"error": {"message": "no such model", "code": "model_not_found"}}}
    server.default = lambda seen: missing
    words = ["run", rows, "--provider", "openai", "--base-url", f"{server.url}/v1", "--json"]
    first = batchrunner(*words)
    asked, server.default = len(server.seen), lambda seen: GOOD

    again = batchrunner(*words)

    assert first.summary["items"]["rejected"] == 9, first.err
    assert again.summary["now"]["sent"] == 9 - asked


def test_results_that_are_not_ours_are_refused_before_anything_is_bought(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    batchrunner(*openai_words(rows, server.url, "--limit", 1, "--out", tmp_path / "run"))
    (tmp_path / "run" / "results.parquet").write_text("precious")
    server.seen.clear()

    ended = batchrunner(*openai_words(rows, server.url, "--out", tmp_path / "run"))

    assert ended.code == 16
    assert server.seen == []
    assert (tmp_path / "run" / "results.parquet").read_text() == "precious"


def test_a_column_to_keep_that_is_not_there_is_a_fault_before_anything_is_bought(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))

    ended = batchrunner(*openai_words(rows, server.url, "--set", 'output.keep=["topic"]'))

    assert ended.code == 2
    assert "output.keep" in ended.summary["reason"]
    assert server.seen == []


def test_fresh_sets_the_old_run_aside_only_for_a_sound_job(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    words = openai_words(rows, server.url, "--out", tmp_path / "run")
    batchrunner(*words)

    faulty = batchrunner(*words, "--fresh", "--set", 'output.keep=["nothing"]')
    fresh = batchrunner(*words, "--fresh")

    assert faulty.code == 2
    assert fresh.summary["exit"] == 0
    assert fresh.summary["now"]["sent"] == 3
    assert sorted(path.name for path in tmp_path.glob("run*")) == ["run", "run.1"]


def test_fresh_leaves_a_run_alone_that_a_newer_version_has_in_hand(tmp_path, server):
    words = openai_words(write_rows(tmp_path / "rows.jsonl", prompts(3)), server.url, "--out", tmp_path / "run")
    batchrunner(*words)
    (tmp_path / "run" / "commits" / "000099.json").write_text('{"format": 99}')

    with (tmp_path / "run" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = batchrunner(*words, "--fresh")
    assert (held.code, [path.name for path in tmp_path.glob("run*")]) == (10, ["run"])
    fresh = batchrunner(*words, "--fresh")
    assert (fresh.code, fresh.summary["now"]["sent"]) == (0, 3)


@pytest.mark.slow
def test_an_export_never_replaces_a_device_and_follows_a_link(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    batchrunner(*openai_words(rows, server.url, "--out", tmp_path / "run"))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")

    ended = batchrunner("export", tmp_path / "run", "--to", tmp_path / "link.jsonl")
    nothing = batchrunner("export", tmp_path / "run", "--to", "/dev/null")

    assert (ended.code, nothing.code) == (0, 0)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "real.jsonl").read_text().splitlines()) == 3
    assert not Path("/dev/null").is_file()


@pytest.mark.slow
def test_an_export_of_a_pilot_holds_the_pilots_items(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(30))
    batchrunner(*openai_words(rows, server.url, "--limit", 10, "--out", tmp_path / "run"))

    assert len(batchrunner("export", tmp_path / "run").out.splitlines()) == 10


BUGGY = """
from batchrunner.providers.openai import OpenAI


class Buggy(OpenAI):
    name = "buggy"

    def parse(self, reply, *, max_wait_s=300.0):
        return 1 / 0


PROVIDER = Buggy()
"""


def test_a_bug_leaves_its_traceback_in_the_log_and_every_paid_outcome_in_the_journal(tmp_path, server):
    """A provider of the user's own, one file, with a bug in it."""
    (tmp_path / "buggy.py").write_text(BUGGY)
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))
    words = ["run", rows, "--provider", "buggy:PROVIDER", "--model", "m", "--base-url", server.url]

    ended = batchrunner(*words, env={"PYTHONPATH": str(tmp_path)})

    assert ended.code == 1
    assert "this is a bug in batchrunner" in ended.err
    assert "ZeroDivisionError" in (tmp_path / "runs" / "rows" / "log.jsonl").read_text()


def test_shards_of_the_gateway_are_refused_unless_someone_knows_better(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(4))
    words = ["run", rows, "--provider", "gateway", "--model", "m", "--base-url", server.url, "--shard", "0/2"]
    refused = batchrunner(*words, env={"GATEWAY_API_KEY": "k"})
    asked = len(server.seen)
    meant = batchrunner(*words, "--set", "provider.requests_per_key=1", env={"GATEWAY_API_KEY": "k"})

    assert (refused.code, asked) == (2, 0)
    assert "answers may be swapped" in refused.err
    assert meant.code == 0, meant.err
