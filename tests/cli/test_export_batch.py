"""OpenAI's Batch files out of a run, and back into it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from driving import api, batchrunner, prompts, write_rows
from faulty_server import serve_in_thread

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_asked_answered_and_failed_is_written_line_by_line(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": "bad", "prompt": ""}, *prompts(3, temperature=0.5)])
    with serve_in_thread() as server:
        refusal = {"status": 400, "body_json": {"error": {"message": "no"}}}
        server.default = lambda seen: refusal if b"p 1" in seen.body else {"status": 200, "body_json": GOOD}
        words = ["run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{server.url}/v1"]
        batchrunner(*words, "--out", tmp_path / "run", "--set", "output.response=false")
    ended = batchrunner("export", tmp_path / "run", "--format", "openai-batch", "--to", tmp_path / "batch")

    assert ended.code == 0, ended.err
    asked, answered, failed = (lines(tmp_path / "batch" / f"{name}.jsonl") for name in ("input", "output", "errors"))
    assert [line["custom_id"] for line in asked] == ["p0", "p1", "p2"]
    assert asked[0]["url"] == "/v1/chat/completions"  # As OpenAI's own batches name their endpoint.
    assert asked[0]["body"] == {"messages": [{"role": "user", "content": "Say p 0"}], "model": "m", "temperature": 0.5}
    assert [line["custom_id"] for line in answered] == ["p0", "p2"]
    assert answered[0]["response"]["body"]["choices"][0]["message"]["content"] == "hi"
    assert [(line["custom_id"], line["error"]["code"]) for line in failed] == [
        ("bad", "bad_row"),
        ("p1", "bad_request"),
    ]
    assert {path.name for path in (tmp_path / "batch").iterdir()} == {"input.jsonl", "output.jsonl", "errors.jsonl"}


def test_the_input_of_a_run_written_so_buys_nothing_in_it(tmp_path):
    mixed = [*prompts(19, temperature=0, note="x"), {"id": "of another", "prompt": "Say so", "agent_id": "8795"}]
    rows = write_rows(tmp_path / "rows.jsonl", mixed)
    with api(tmp_path / "log") as simulator:
        words = ["--provider", "tess", "--agent-id", 8794, "--base-url", simulator.url, "--rpm", "none"]
        first = batchrunner("run", rows, *words, "--out", tmp_path / "run")
        batchrunner("export", tmp_path / "run", "--format", "openai-batch", "--to", tmp_path)
        again = batchrunner("run", tmp_path / "input.jsonl", *words, "--out", tmp_path / "run", "--json")
        write_rows(tmp_path / "other.jsonl", prompts(20, prefix="other"))
        other = batchrunner("run", tmp_path / "other.jsonl", *words, "--out", tmp_path / "run")
        asked = len(simulator.seen())

    assert [first.code, again.code, other.code] == [0, 0, 13], again.err
    assert asked == 20
    assert again.summary["now"]["sent"] == 0


def test_it_needs_a_directory(tmp_path):
    with api(tmp_path / "log") as simulator:
        rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
        words = ["--provider", "tess", "--agent-id", 1, "--base-url", simulator.url]
        batchrunner("run", rows, *words, "--out", tmp_path / "run")

    ended = batchrunner("export", tmp_path / "run", "--format", "openai-batch")

    assert ended.code == 2
    assert "give --to DIRECTORY" in ended.err


@pytest.mark.real
@pytest.mark.parametrize("kept", ["true", "false"])
def test_every_answer_is_what_openais_own_library_reads(tmp_path, kept):
    from real import needs

    needs.package("openai", "pip install 'batchrunner[real]'")
    from openai.types.chat import ChatCompletion

    rows = write_rows(tmp_path / "rows.jsonl", prompts(10))
    with api(tmp_path / "log") as simulator:
        for kind in ("openai", "tess", "gateway", "opentools"):
            base = simulator.openai if kind == "openai" else simulator.url
            words = ["--provider", kind, "--model", "m", "--agent-id", 1, "--base-url", base, "--rpm", "none"]
            run = tmp_path / kind
            key = {f"{kind.upper()}_API_KEY": "k"}
            ended = batchrunner("run", rows, *words, "--out", run, "--set", f"output.response={kept}", env=key)
            assert ended.code == 0, ended.err
            batchrunner("export", run, "--format", "openai-batch", "--to", run / "batch")
            answers = lines(run / "batch" / "output.jsonl")
            assert len(answers) == 10
            for line in answers:
                found = ChatCompletion.model_validate(line["response"]["body"], strict=True)
                assert found.choices[0].message.content
