"""Typed columns: answers held against a JSON Schema, mended where they can be, and put into declared columns."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows
from faulty_server import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from faulty_server import Seen

JOB = """
name = "labels"
[input]
path = "rows.jsonl"
[provider]
kind = "{kind}"
base_url = "{url}"
api_key = "none"
[request]
model = "m"
agent_id = 1
[limits]
requests_per_minute = "none"
[output]
dir = "run"
[expect]
{expect}
[expect.schema]
type = "object"
required = ["label", "score"]
additionalProperties = false
[expect.schema.properties]
label = {{ enum = ["bug", "praise"] }}
score = {{ type = "integer" }}
note = {{ type = ["string", "null"] }}
tags = {{ type = "array", items = {{ type = "string" }} }}
who = {{ type = "object", properties = {{ name = {{ type = "string" }} }} }}
"""
RIGHT = {"label": "bug", "score": 3, "tags": [], "who": {"name": "Ana"}}


def reply(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "status": 200,
        "body_json": {
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        },
    }


def answering(texts: Mapping[str, str]) -> Any:
    """By the prompt; `mended` where a correction was asked for."""

    def answer(seen: Seen) -> dict[str, Any]:
        messages = json.loads(seen.body)["messages"]
        if len(messages) > 1:
            return reply(texts["mended"])
        return reply(texts[messages[0]["content"]])

    return answer


def write_job(folder: Path, url: str, *, kind: str = "openai", expect: str = "") -> Path:
    job = folder / "job.toml"
    where = f"{url}/v1" if kind == "openai" else url
    job.write_text(JOB.format(kind=kind, url=where, expect=expect))
    return job


def run(job: Path, *more: object) -> Any:
    return batchrunner("run", job, "--json", *more)


def test_answers_become_declared_columns(tmp_path):
    texts = {
        "Say p 0": json.dumps(RIGHT),
        "Say p 1": f"Here you are:\n```json\n{json.dumps({**RIGHT, 'label': 'praise'})}\n```\nBye.",
        "Say p 2": 'I think {"label": "bug", "score": 7.0} fits.',
    }
    write_rows(tmp_path / "rows.jsonl", prompts(3))
    with serve_in_thread() as server:
        server.default = answering(texts)
        ended = run(write_job(tmp_path, server.url))
        bodies = [json.loads(seen.body) for seen in server.seen]

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["out_label"].to_list() == ["bug", "praise", "bug"]
    assert table["out_score"].to_list() == [3, 3, 7]
    assert table["out_tags"].to_list() == [[], [], None]
    assert (
        table["out_who"].to_list() == [{"name": "Ana"}, {"name": "Ana"}, {"name": None}] or table["out_who"][2] is None
    )
    assert table.schema["out_note"] == pl.String
    assert table.schema["out_score"] == pl.Int64
    assert {body["response_format"]["type"] for body in bodies} == {"json_schema"}
    shown = batchrunner("export", tmp_path / "run", "--where", "out_label = 'praise'")
    assert [json.loads(line)["out_score"] for line in shown.out.splitlines()] == [3]


def test_a_wrong_answer_is_mended_or_kept_as_rejected(tmp_path):
    texts = {"Say p 0": '{"label": "bug"}', "mended": json.dumps(RIGHT)}
    write_rows(tmp_path / "rows.jsonl", prompts(1))
    with serve_in_thread() as server:
        server.default = answering(texts)
        mended = run(write_job(tmp_path, server.url))
        asked = [json.loads(seen.body)["messages"] for seen in server.seen]
        again = run(tmp_path / "job.toml")
        texts["mended"] = "no"
        stubborn = run(tmp_path / "job.toml", "--out", tmp_path / "other")
        sent = len(server.seen)

    assert [mended.code, again.code, stubborn.code] == [0, 0, 3], mended.err
    assert [message["role"] for message in asked[1]] == ["user", "assistant", "user"]
    assert '"score" is a required property' in asked[1][2]["content"]
    good, bad = (pl.read_parquet(one.summary["results"]).row(0, named=True) for one in (mended, stubborn))
    assert (good["attempts"], good["failed_prompt_tokens"], good["sent_changes"]) == (2, 10, "repaired 1x")
    assert good["out_label"] == "bug"
    assert sent == 4
    assert (bad["status"], bad["error_type"], bad["text"], bad["out_label"]) == (
        "rejected",
        "invalid_output",
        "no",
        None,
    )
    assert bad["response"] is not None
    assert bad["failed_completion_tokens"] == bad["completion_tokens"] == 5


def test_an_answer_that_the_server_refuses_to_mend_is_kept(tmp_path):
    write_rows(tmp_path / "rows.jsonl", prompts(1))
    first = answering({"Say p 0": '{"label": "bug"}'})

    def too_long(seen):
        if len(json.loads(seen.body)["messages"]) == 1:
            return first(seen)
        error = {"code": "context_length_exceeded", "message": "maximum context length is 100 tokens"}
        return {"status": 400, "body_json": {"error": error}}

    with serve_in_thread() as server:
        server.default = too_long
        refused = run(write_job(tmp_path, server.url))
        sent = len(server.seen)

    assert (refused.code, sent) == (3, 2), refused.err
    kept = pl.read_parquet(refused.summary["results"]).row(0, named=True)
    assert (kept["status"], kept["error_type"], kept["text"]) == ("rejected", "invalid_output", '{"label": "bug"}')
    assert '"score" is a required property; asked to mend it: 400 ' in kept["error"]
    assert (kept["failed_prompt_tokens"], kept["failed_completion_tokens"]) == (10, 5)


@pytest.mark.parametrize(("number", "requests"), [(signal.SIGTERM, 3), (signal.SIGKILL, 6)])
def test_an_answer_that_waits_to_be_mended_is_never_bought_again(tmp_path, number, requests):
    """A drain while the wrong answers are on their way, a kill while better ones are."""
    texts = {f"Say p {n}": '{"label": "bug"}' for n in range(3)} | {"mended": json.dumps(RIGHT)}
    write_rows(tmp_path / "rows.jsonl", prompts(3))
    with serve_in_thread() as server:
        server.default, server.latency_s = answering(texts), 1.0
        job = write_job(tmp_path, server.url, expect="")
        process = start("run", job, "--json")
        while len(server.seen) < requests:
            time.sleep(0.02)
        process.send_signal(number)
        stopped = finish(process)
        ended = run(job)
        asked = Counter(len(seen.json()["messages"]) for seen in server.seen)

    assert (stopped.code, ended.code) == ({signal.SIGTERM: 143, signal.SIGKILL: -9}[number], 0), stopped.err
    assert asked == {1: 3, 3: requests}
    table = pl.read_parquet(ended.summary["results"])
    assert table["out_score"].to_list() == [3, 3, 3]
    assert table["sent_changes"].to_list() == ["repaired 1x"] * 3
    for name in ("prompt_tokens", "failed_prompt_tokens"):
        assert table[name].to_list() == [10, 10, 10]
    assert (ended.summary["prompt_tokens"], ended.summary["completion_tokens"]) == (60, 30)


@pytest.mark.parametrize(("expect", "code"), [("", 3), ("allow_length = true", 0)])
def test_a_cut_answer_is_rejected_unless_it_may_be_cut(tmp_path, expect, code):
    write_rows(tmp_path / "rows.jsonl", prompts(1))
    with serve_in_thread() as server:
        server.default = lambda _: reply(json.dumps(RIGHT), "length")
        ended = run(write_job(tmp_path, server.url, expect=expect))
        asked = len(server.seen)

    assert ended.code == code
    assert asked == 1
    row = pl.read_parquet(ended.summary["results"]).row(0, named=True)
    assert row["error_type"] == ("length" if code else None)
    assert row["text"] == json.dumps(RIGHT)


def test_a_dialect_that_drops_formats_silently_is_sent_none_and_a_new_schema_asks_nothing_again(tmp_path):
    write_rows(tmp_path / "rows.jsonl", prompts(2))
    with serve_in_thread() as server:
        server.default = lambda _: reply(json.dumps(RIGHT))
        job = write_job(tmp_path, server.url, kind="tess")
        first = run(job)
        job.write_text(job.read_text().replace("[expect]", '[expect]\nprefix = "is_"'))
        second = run(job)
        bodies = [json.loads(seen.body) for seen in server.seen]

    assert [first.code, second.code] == [0, 0], second.err
    assert len(bodies) == 2
    assert not any("response_format" in body for body in bodies)
    assert pl.read_parquet(second.summary["results"])["is_label"].to_list() == ["bug", "bug"]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('"file:none.json"', "expect.schema: none.json: no such file or directory"),
        ('"no.such:Model"', "expect.schema: no.such:Model: No module named 'no'"),
        ('{ type = "objct" }', "expect.schema.type"),
        ('{ "$ref" = "http://127.0.0.1:9/x" }', "is another document, and none is fetched"),
        ("3", "expect.schema: expected a JSON Schema"),
    ],
)
def test_faults_of_the_schema(tmp_path, schema, said):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    words = [
        "--provider",
        "tess",
        "--agent-id",
        1,
        "--base-url",
        "http://127.0.0.1:9",
        "--set",
        f"expect.schema={schema}",
    ]

    ended = batchrunner("run", rows, *words, cwd=tmp_path)

    assert ended.code == 2
    assert said in ended.err


def test_a_pydantic_class_beside_the_job(tmp_path):
    (tmp_path / "shapes.py").write_text(
        "import pydantic\nclass Label(pydantic.BaseModel):\n    label: str\n    sure: float\n"
    )
    write_rows(tmp_path / "rows.jsonl", prompts(1))
    with serve_in_thread() as server:
        server.default = lambda _: reply('{"label": "bug", "sure": 1}')
        job = write_job(tmp_path, server.url)
        text = job.read_text()
        job.write_text(text[: text.index("[expect.schema]")].replace("[expect]", '[expect]\nschema = "shapes:Label"'))
        ended = run(job)

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table.schema["out_sure"] == pl.Float64
    assert table["out_sure"].to_list() == [1.0]


def test_the_simulator_answers_by_the_schema_and_wrongly_at_a_rate(tmp_path):
    write_rows(tmp_path / "rows.jsonl", prompts(60))
    with api(tmp_path / "log", invalid_rate=0.5) as simulator:
        job = write_job(tmp_path, simulator.url)
        ended = run(job)
        asked = len(simulator.seen())

    table = pl.read_parquet(ended.summary["results"])
    assert ended.code == 3
    assert asked == table["attempts"].sum() > 60
    by_status = dict(table["status"].value_counts().rows())
    assert 30 < by_status["succeeded"] < 58
    assert set(table.filter(status="rejected")["error_type"]) == {"invalid_output"}
    assert set(table.filter(status="succeeded")["out_label"]) == {"bug", "praise"}
    assert ended.summary["failed_by_type"]["invalid_output"]["count"] == by_status["rejected"]


def test_another_schema_is_applied_to_the_answers_there_are(tmp_path):
    texts = {"Say p 0": json.dumps(RIGHT), "Say p 1": json.dumps({**RIGHT, "label": "other"})}
    write_rows(tmp_path / "rows.jsonl", prompts(2))
    with serve_in_thread() as server:
        server.default = answering({**texts, "mended": texts["Say p 1"]})
        job = write_job(tmp_path, server.url)
        first = run(job)
        job.write_text(job.read_text().replace('["bug", "praise"]', '["other", "praise"]'))
        changed = run(job)
        parsed = batchrunner("reparse", job, "--json")
        looked = batchrunner("status", tmp_path / "run", "--json")
        sound = batchrunner("fsck", tmp_path / "run")
        sent = len(server.seen)

    assert [first.code, changed.code, parsed.code, sound.code] == [3, 13, 0, 0], (parsed.err, sound.err)
    assert "expect.schema" in changed.err
    assert sent == 3
    assert (parsed.summary["revived"], parsed.summary["not_valid"]) == (1, 1)
    table = pl.read_parquet(parsed.summary["results"])
    assert table["status"].to_list() == ["succeeded", "succeeded"]
    assert table["out_label"].to_list() == [None, "other"]
    assert table["origin"].to_list() == ["sent", "reparsed"]
    state = json.loads(looked.out)
    assert (state["items"]["succeeded"], state["exit"], state["retryable"]) == (2, 0, False)
    assert state["next"].endswith("--sample 3")
    # Three answers were paid for, whatever they are called now.
    assert state["prompt_tokens"] == 30


def test_reparse_needs_something_to_derive(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    with api(tmp_path / "log") as simulator:
        batchrunner(*run_words(rows, simulator.url, "--out", tmp_path / "run"))

    ended = batchrunner("reparse", tmp_path / "run")

    assert ended.code == 2
    assert "expected a job with [expect] schema" in ended.err


def test_answers_of_earlier_runs_are_taken_over_where_they_are_as_expected(tmp_path):
    texts = {"Say p 0": json.dumps(RIGHT), "Say p 1": "plain words"}
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2))
    with serve_in_thread() as server:
        server.default = answering({**texts, "mended": json.dumps(RIGHT)})
        words = ["--provider", "tess", "--agent-id", 1, "--model", "m", "--base-url", server.url]
        batchrunner("run", rows, *words, "--out", tmp_path / "before")
        job = write_job(tmp_path, server.url, kind="tess")
        job.write_text(f"{job.read_text()}\n[reuse]\nfrom = 'before'\n")
        ended = run(job)
        sent = len(server.seen)

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["origin"].to_list() == ["reused", "sent"]
    assert table["out_label"].to_list() == ["bug", "bug"]
    # The plain words were asked for once more, and mended.
    assert sent == 2 + 2


def test_an_input_column_that_is_called_like_a_derived_one_is_kept_beside_it(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"id": "1", "prompt": "x", "answer_label": "by hand"}])
    with serve_in_thread() as server:
        server.default = reply(json.dumps(RIGHT))
        job = tmp_path / "job.toml"
        job.write_text(JOB.format(kind="openai", url=f"{server.url}/v1", expect='prefix = "answer_"'))
        ended = batchrunner("run", job, "--json")

    assert ended.code == 0, ended.err
    row = pl.read_parquet(ended.summary["results"]).to_dicts()[0]
    assert (row["answer_label"], row["input_answer_label"]) == ("bug", "by hand")
