"""aimock, a mock server of others, told to misbehave: every item is settled, as its fixture says."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import batchrunner, write_rows
from real import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from driving import Ended

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ATTEMPTS = 12
# aimock throws its dice in this order, each one for what the dice before it left: 10 %, 30 % and 10 % of all.
CHAOS = {"malformed": 0.1, "ratelimit": 0.3 / 0.9, "disconnect": 0.1 / 0.6, "latency": 100}
QUIET = ["--journal-max", "0", "--strict", "--log-level", "silent"]
CALL = {"name": "get_weather", "arguments": {"city": "Porto", "unit": "celsius"}}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the server saw it, and what the server did to it."""

    prompt: str
    at_s: float
    status: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class Mock:
    url: str

    def seen(self) -> list[Seen]:
        """Every request so far, the first one first."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal?path=/v1/chat/completions&limit=100000") as reply:
            entries = json.load(reply)
        return [
            Seen(
                entry["body"]["messages"][-1]["content"],
                entry["timestamp"] / 1000,
                entry["response"]["status"],
                entry["response"].get("chaosAction"),
            )
            for entry in entries
        ]


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
        yield Mock(f"http://127.0.0.1:{port}")
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


def ask(server: Mock, rows: Path, *more: object) -> Ended:
    words = ["run", rows, "--provider", "openai", "--model", "m", "--base-url", f"{server.url}/v1", "--json", *more]
    return batchrunner(*words, timeout_s=400)


def table(ended: Ended) -> pl.DataFrame:
    return pl.read_parquet(ended.summary["results"])


def billed(seen: list[Seen]) -> int:
    """How many went out whole and brought no answer."""
    return sum(one.fault in ("malformed", "disconnect") for one in seen)


def assert_booked(ended: Ended, seen: list[Seen]) -> None:
    """What the run says that it sent is what the server got, and no item was sent too often."""
    sent = Counter(one.prompt for one in seen)
    refused = Counter(one.prompt for one in seen if one.status == 429)
    assert all(times <= ATTEMPTS + refused[prompt] for prompt, times in sent.items())
    assert ended.summary["now"]["sent"] == len(seen)
    assert ended.summary["now"]["possibly_billed"] == billed(seen)


@pytest.mark.parametrize(("count", "stream"), [(2_000, False), (300, True)], ids=["plain", "streams"])
def test_every_item_is_settled_as_its_fixture_says(tmp_path, count, stream):
    """30 % 429, 10 % malformed, 10 % disconnects. What is out of attempts is tried again by the same command."""
    asked = questions(count, stream=stream)
    rows = write_rows(tmp_path / "rows.jsonl", asked)
    more = ["--concurrency", 64, "--set", f"retry.attempts={ATTEMPTS}", "--out", tmp_path / "run"]
    trips: dict[str, int] = {}
    with mock(tmp_path, fixtures(count), CHAOS) as server:
        for _ in range(4):
            known = len(server.seen())
            ended = ask(server, rows, *more)
            seen = server.seen()[known:]
            assert_booked(ended, seen)
            trips |= Counter(one.prompt for one in seen)
            if ended.code != 4:
                break
        faults = Counter(one.fault for one in server.seen())
        in_all = billed(server.seen())

    assert ended.code == 0, ended.out
    assert ended.summary["possibly_billed"] == in_all
    found = table(ended)
    assert found["item_id"].to_list() == [row["id"] for row in asked]
    assert found["text"].to_list() == [answer(number) for number in range(count)]
    assert found["attempts"].to_list() == [trips[row["prompt"]] for row in asked]
    assert found["prompt_tokens"].null_count() == 0
    assert faults["rateLimit"] > 0.2 * faults.total()
    assert min(faults["malformed"], faults["disconnect"]) > 0.05 * faults.total()


@pytest.mark.parametrize(
    ("fault", "error_type", "http_status", "attempts"),
    [("malformed", "malformed", 200, 3), ("disconnect", "connection", None, 4)],
)
def test_a_fault_that_stays_is_named_and_each_of_its_trips_may_be_billed(
    tmp_path, fault, error_type, http_status, attempts
):
    """A reply that cannot be read is asked for again twice, however many attempts there are."""
    rows = write_rows(tmp_path / "rows.jsonl", questions(2))
    with mock(tmp_path, fixtures(2), {fault: 1}) as server:
        ended = ask(server, rows, "--set", "retry.attempts=4")
        seen = server.seen()

    assert ended.code == 4
    found = table(ended).select("status", "error_type", "http_status", "attempts", "possibly_billed")
    assert found.rows() == [("exhausted", error_type, http_status, attempts, attempts)] * 2
    assert len(seen) == 2 * attempts


def test_the_servers_retry_after_is_kept_and_a_429_uses_up_no_attempt(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", questions(1))
    with mock(tmp_path, fixtures(1), {"ratelimit": 1}) as server:
        ended = ask(server, rows, "--set", "retry.attempts=1", "--set", "retry.down_s=4")
        times = [one.at_s for one in server.seen()]

    assert ended.code == 15
    assert ended.summary["items"]["unfinished"] == 1
    assert ended.summary["possibly_billed"] == 0
    assert len(times) >= 3
    # The journal's clock counts whole milliseconds.
    assert all(later - sooner >= 0.998 for sooner, later in pairwise(times))


def test_a_stream_cut_midway_is_asked_again_and_nothing_of_it_is_kept(tmp_path):
    whole = "A long answer. " * 30
    match = {"userMessage": "Tell me."}
    cut = {"match": {**match, "sequenceIndex": 0}, "response": {"content": whole}, "truncateAfterChunks": 3}
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Tell me.", "stream": True}])
    with mock(tmp_path, [cut, {"match": match, "response": {"content": whole}}], {}) as server:
        ended = ask(server, rows)

    assert ended.code == 0, ended.out
    assert table(ended).select("text", "attempts", "possibly_billed").rows() == [(whole, 2, 1)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_is_the_one_of_the_fixture(tmp_path, stream):
    fixture = {"match": {"userMessage": "Weather?"}, "response": {"toolCalls": [CALL]}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Weather?", "tools": [tool], "stream": stream}])
    with mock(tmp_path, [fixture], {}) as server:
        ended = ask(server, rows)

    assert ended.code == 0, ended.out
    found = table(ended)
    (call,) = json.loads(found["tool_calls"][0])
    assert call["function"]["name"] == CALL["name"]
    assert json.loads(call["function"]["arguments"]) == CALL["arguments"]
    assert found["finish_reason"].to_list() == ["tool_calls"]


def test_a_question_that_the_server_cannot_answer_stays_open_and_the_others_go_on(tmp_path):
    """aimock answers 503 where it has no fixture: it may have one tomorrow."""
    rows = write_rows(tmp_path / "rows.jsonl", [*questions(3), {"id": "odd", "prompt": "Who are you?"}])
    with mock(tmp_path, fixtures(3), {}) as server:
        ended = ask(server, rows, "--set", "retry.attempts=2")

    assert ended.code == 4
    found = table(ended)
    assert found["status"].to_list() == ["succeeded"] * 3 + ["exhausted"]
    assert found.select("error_type", "http_status", "attempts").row(3) == ("overloaded", 503, 2)
