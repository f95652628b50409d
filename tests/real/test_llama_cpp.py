"""llama.cpp's own server, on a tiny model of random weights: real usage, real streams, real refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import batchrunner, write_rows
from real import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["bug", "praise"]}, "urgent": {"type": "boolean"}},
    "required": ["label", "urgent"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},  # Random weights would say nothing but blanks where they may.
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needs.llama_cpp()
    folder = tmp_path_factory.mktemp("model")
    server = Path(__file__).with_name("tiny_model.py")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, server, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), (folder / "log").read_text()
            yield url
        finally:
            process.communicate("", timeout=20)


def ask(folder: Path, url: str, rows: list[dict[str, Any]], *more: object) -> Any:
    path = write_rows(folder / "rows.jsonl", rows)
    words = ["run", path, "--provider", "openai", "--model", "tiny", "--base-url", f"{url}/v1", "--json", *more]
    return batchrunner(*words, "--set", "request.temperature=0", "--set", "request.seed=1", "--concurrency", 4)


def texts(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "prompt": f"Number {n}.", "max_tokens": 12, **columns} for n in range(count)]


def test_answers_and_usage_are_those_of_the_server(tmp_path, llama):
    ended = ask(tmp_path, llama, texts(20))

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert set(table["finish_reason"]) <= {"length", "stop"}
    assert table["prompt_tokens"].null_count() == table["completion_tokens"].null_count() == 0
    # A token a byte: the role's marks around the prompt, and nothing else.
    assert (table["prompt_tokens"] > len("Number 1.")).all()
    assert table["completion_tokens"].max() <= 12
    assert (table["total_tokens"] == table["prompt_tokens"] + table["completion_tokens"]).all()
    assert ended.summary["completion_tokens"] == table["completion_tokens"].sum()


def test_a_stream_says_what_the_plain_reply_says(tmp_path, llama):
    plain = ask(tmp_path, llama, texts(12), "--out", tmp_path / "plain")
    streamed = ask(tmp_path, llama, texts(12, stream=True), "--out", tmp_path / "streamed")

    first, second = (pl.read_parquet(ended.summary["results"]) for ended in (plain, streamed))
    assert first["text"].to_list() == second["text"].to_list()
    for name in ("finish_reason", "prompt_tokens", "completion_tokens"):
        assert first[name].to_list() == second[name].to_list(), name
    assert (second["first_token_s"] < second["latency_s"]).all()


def test_a_schema_is_kept_even_by_random_weights(tmp_path, llama):
    wanted = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA, "strict": True}}
    ended = ask(tmp_path, llama, [row | {"max_tokens": 64} for row in texts(6, response_format=wanted)])

    assert ended.code == 0, ended.err
    for text in pl.read_parquet(ended.summary["results"])["text"]:
        answer = json.loads(text)
        assert answer["label"] in ("bug", "praise")
        assert isinstance(answer["urgent"], bool)


def test_a_prompt_beyond_the_context_is_rejected_at_once_and_the_others_go_on(tmp_path, llama):
    rows = texts(6)
    rows[2]["prompt"] = "too long " * 200

    ended = ask(tmp_path, llama, rows)

    assert ended.code == 3
    table = pl.read_parquet(ended.summary["results"])
    refused = table.filter(pl.col("status") == "rejected")
    assert refused.select("item_id", "error_type", "http_status", "attempts").row(0) == ("r2", "context_length", 400, 1)
    assert "too long too long" not in refused["error"][0]
    assert len(refused) == 1


def test_several_choices_are_all_kept(tmp_path, llama):
    ended = ask(tmp_path, llama, [row | {"n": 2} for row in texts(2)])

    assert ended.code == 0, ended.err
    assert [len(json.loads(choices)) for choices in pl.read_parquet(ended.summary["results"])["choices"]] == [2, 2]


def test_a_conversation_goes_from_turn_to_turn(tmp_path, llama):
    rows = [{"id": f"t{n}", "turns": [f"First {n}.", "Second.", "Third."], "max_tokens": 8} for n in range(3)]

    ended = ask(tmp_path, llama, rows)

    assert ended.code == 0, ended.err
    for text in pl.read_parquet(ended.summary["results"])["turns"]:
        sent = [turn["prompt_tokens"] for turn in json.loads(text)]
        assert len(sent) == 3
        assert sent == sorted(sent)
