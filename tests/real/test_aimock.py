"""aimock, a mock server of others, told to misbehave: every item is settled, as its fixture says."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import batchrunner, write_rows
from real import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ATTEMPTS = 12
CHAOS = {"ratelimit": 0.3, "malformed": 0.1, "disconnect": 0.1, "latency": 100}
QUIET = ["--journal-max", "0", "--strict", "--log-level", "silent"]
CALL = {"name": "get_weather", "arguments": {"city": "Porto", "unit": "celsius"}}


class Mock:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def journal(self) -> list[dict[str, Any]]:
        """Every request that it saw, with the status it was given."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal?path=/v1/chat/completions&limit=100000") as reply:
            found: list[dict[str, Any]] = json.load(reply)
        return found

    def tries(self) -> tuple[Counter[str], Counter[str]]:
        """By prompt: how often it was sent, and how often it was refused for its rate."""
        sent, refused = Counter[str](), Counter[str]()
        for entry in self.journal():
            prompt = entry["body"]["messages"][-1]["content"]
            sent[prompt] += 1
            refused[prompt] += entry["response"]["status"] == 429
        return sent, refused


@contextmanager
def mock(folder: Path, fixtures: list[dict[str, Any]], chaos: Mapping[str, float]) -> Iterator[Mock]:
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [f"--chaos-{name}={rate}" for name, rate in chaos.items()]
    process = subprocess.Popen(
        [needs.llmock(), "-p", str(port), "-f", folder / "fixtures.json", *QUIET, *words],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield Mock(port)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "llmock ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("llmock does not listen")


def answer(number: int) -> str:
    return f"Answer {number:05d}: grüße 🎈\n{'ab ' * (number % 30)}"


def fixtures(count: int) -> list[dict[str, Any]]:
    return [
        {"match": {"userMessage": f"Question {number:05d}."}, "response": {"content": answer(number)}}
        for number in range(count)
    ]


def questions(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "prompt": f"Question {number:05d}.", **columns} for number in range(count)]


@pytest.mark.parametrize(("count", "stream"), [(2_000, False), (300, True)], ids=["plain", "streams"])
def test_every_item_is_settled_as_its_fixture_says(tmp_path, count, stream):
    """30 % 429, 10 % malformed, 10 % disconnects. What is out of attempts is tried again by the same command."""
    rows = write_rows(tmp_path / "rows.jsonl", questions(count, stream=stream))
    with mock(tmp_path, fixtures(count), CHAOS) as server:
        words = ["run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{server.url}/v1", "--json"]
        words += ["--concurrency", 64, "--set", f"retry.attempts={ATTEMPTS}", "--out", tmp_path / "run"]
        before = Counter[str]()
        for _ in range(4):
            ended = batchrunner(*words, timeout_s=400)
            sent, refused = server.tries()
            assert all(sent[q] - before[q] <= ATTEMPTS + refused[q] for q in sent)
            before = sent
            if ended.code != 4:
                break

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["item_id"].to_list() == [f"q{number}" for number in range(count)]
    assert table["text"].to_list() == [answer(number) for number in range(count)]
    assert table["prompt_tokens"].null_count() == 0
    assert sum(refused.values()) > count * 0.2


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_is_the_one_of_the_fixture(tmp_path, stream):
    fixture = {"match": {"userMessage": "Weather?"}, "response": {"toolCalls": [CALL]}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Weather?", "tools": [tool], "stream": stream}])
    with mock(tmp_path, [fixture], {}) as server:
        ended = batchrunner("run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{server.url}/v1")

    assert ended.code == 0, ended.err
    (call,) = json.loads(ended.table()["tool_calls"][0])
    assert call["function"]["name"] == CALL["name"]
    assert json.loads(call["function"]["arguments"]) == CALL["arguments"]
    assert ended.table()["finish_reason"].to_list() == ["tool_calls"]


def test_a_question_without_a_fixture_is_refused_and_the_others_go_on(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [*questions(3), {"id": "odd", "prompt": "Who are you?"}])
    with mock(tmp_path, fixtures(3), {}) as server:
        ended = batchrunner("run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{server.url}/v1")

    assert ended.table()["status"].to_list()[:3] == ["succeeded"] * 3
    assert ended.table().row(3, named=True)["status"] != "succeeded"
