"""The simulator as a server: limits by the clock, faults on the wire, the log, and a clean end."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest

from batchrunner.errors import JobError, StoreError
from batchrunner.simulator import Settings, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchrunner.simulator import Simulator

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


def body(number: int = 0, **fields: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}], **fields}


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    async with serving(Settings(**settings)) as simulator, aiohttp.ClientSession() as session:
        yield simulator, session


async def send_evenly(simulator: Simulator, session: aiohttp.ClientSession, *, per_s: float, for_s: float) -> float:
    """Requests at an even pace, whatever the replies; returns how long it took."""

    async def send(number: int) -> None:
        async with session.post(simulator.url + PATH, json=body(number)) as reply:
            await reply.read()

    began = time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(int(per_s * for_s)):
            await anyio.sleep(max(0.0, began + number / per_s - time.monotonic()))
            group.start_soon(send, number)
    return time.monotonic() - began


async def test_who_sends_evenly_at_the_allowance_is_never_refused() -> None:
    async with running(requests_per_minute=3_000) as (simulator, session):
        await send_evenly(simulator, session, per_s=50, for_s=2)

    assert simulator.counts.by_status == {200: 100}


async def test_who_sends_thrice_the_allowance_gets_the_allowance() -> None:
    async with running(requests_per_minute=3_000) as (simulator, session):
        took_s = await send_evenly(simulator, session, per_s=150, for_s=2)

    allowed = 50 + 50 * took_s
    assert simulator.counts.by_status[200] == pytest.approx(allowed, rel=0.05)
    assert simulator.counts.requests == 300


async def test_who_sends_evenly_at_the_token_allowance_is_never_refused() -> None:
    async with running(tokens_per_minute=60_000) as (simulator, session):
        async with session.post(simulator.url + PATH, json=body()) as reply:
            tokens = (await reply.json())["usage"]["total_tokens"]
        await send_evenly(simulator, session, per_s=0.9 * 1_000 / (tokens * 1.2), for_s=1)

    assert set(simulator.counts.by_status) == {200}


async def test_the_tokens_of_a_failed_request_are_given_back() -> None:
    async with running(tokens_per_minute=6_000, error_rate=1.0) as (simulator, session):
        results = [await _result(session, simulator, body(number, max_tokens=90)) for number in range(3)]

    assert set(results) <= {"500", "503"}


async def test_answers_repeat_across_runs_of_the_server() -> None:
    async def replies() -> list[bytes]:
        async with running(seed=3) as (simulator, session):
            return [await _bytes(session, simulator, body(number)) for number in range(5)]

    assert await replies() == await replies()


async def _bytes(session: aiohttp.ClientSession, simulator: Simulator, asked: dict[str, Any]) -> bytes:
    async with session.post(simulator.url + PATH, json=asked) as reply:
        return await reply.read()


async def _result(session: aiohttp.ClientSession, simulator: Simulator, asked: dict[str, Any]) -> str:
    """What a client makes of the reply: its status, or how it broke."""
    try:
        async with session.post(simulator.url + PATH, json=asked) as reply:
            await reply.read()
            return str(reply.status)
    except aiohttp.ClientPayloadError:
        return "cut"


async def test_faults_repeat_across_runs_and_a_retry_can_succeed() -> None:
    async def story() -> list[list[str]]:
        async with running(seed=5, error_rate=0.3, cut_rate=0.2) as (simulator, session):
            return [[await _result(session, simulator, body(n)) for _ in range(4)] for n in range(20)]

    first, second = await story(), await story()

    assert first == second
    assert set(Counter(result for results in first for result in results)) == {"200", "500", "503", "cut"}
    assert all("200" in results for results in first)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_reply_ends_before_what_it_announced(stream: bool) -> None:
    async with (
        running(cut_rate=1.0) as (simulator, session),
        session.post(simulator.url + PATH, json=body(stream=stream)) as reply,
    ):
        came = await reply.content.readany()
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()

    assert reply.status == 200
    assert came.startswith(b"data: {" if stream else b'{"id"')
    assert b"[DONE]" not in came


async def test_a_stalled_reply_sends_headers_and_then_nothing() -> None:
    async with (
        running(stall_rate=1.0) as (simulator, session),
        session.post(simulator.url + PATH, json=body()) as reply,
    ):
        with anyio.move_on_after(0.3) as waited:
            await reply.content.readany()

    assert (reply.status, waited.cancelled_caught) == (200, True)


async def test_a_stall_ends_with_the_connection() -> None:
    async with running(stall_rate=1.0, stall_s=0.1) as (simulator, session):
        assert await _result(session, simulator, body()) == "cut"


async def test_garbage_is_a_200_without_a_completion() -> None:
    async with running(garbage_rate=1.0) as (simulator, session):
        replies = {await _bytes(session, simulator, body(number)) for number in range(40)}

    assert simulator.counts.by_status == {200: 40}
    assert any(reply.startswith(b"<!DOCTYPE html>") for reply in replies)
    assert len(replies) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_latency_passes_before_the_answer_is_whole(stream: bool) -> None:
    async with running(latency_s=0.2) as (simulator, session):
        began = time.monotonic()
        whole = await _bytes(session, simulator, body(stream=stream))

    assert 0.05 < time.monotonic() - began < 1.5
    assert b"question 0" in whole or stream


async def test_the_log_has_a_whole_line_per_request_without_secrets(tmp_path: Path) -> None:
    log = anyio.Path(tmp_path / "access.jsonl")
    secrets = {"Authorization": "Bearer s3cret", "api-key": "s3cret", "Cookie": "a=s3cret", "X-Team": "caf\u00e9"}
    async with running(log=Path(log), error_rate=0.5) as (simulator, session):
        for number in range(20):
            async with session.post(simulator.url + PATH, json=body(number), headers=secrets) as reply:
                await reply.read()
        async with session.post(simulator.url + "/nowhere", data="no json"):
            pass

    text = await log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert "s3cret" not in text
    assert [line["body"] for line in lines] == [*(body(number) for number in range(20)), "no json"]
    assert Counter(line["status"] for line in lines) == simulator.counts.by_status
    assert {"time", "path", "headers", "body", "status", "fault"} == set(lines[0])
    assert (lines[0]["time"][-1], lines[0]["path"], lines[0]["headers"]["x-team"]) == ("Z", PATH, "caf\u00e9")


async def test_a_header_that_is_no_utf8_is_logged_all_the_same(tmp_path: Path) -> None:
    log = anyio.Path(tmp_path / "access.jsonl")
    async with serving(Settings(log=Path(log))) as simulator:
        port = int(simulator.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as raw:
            await raw.send(b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Team: caf\xe9\r\n\r\n")
            assert (await raw.receive()).startswith(b"HTTP/1.1 405")

    assert json.loads(await log.read_text())["headers"]["x-team"] == "caf?"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_log_that_cannot_be_written_is_told_at_the_end() -> None:
    with pytest.raises(StoreError, match=r"/dev/full.*no space left"):
        async with running(log=Path("/dev/full")) as (simulator, session):
            await _bytes(session, simulator, body())


async def test_the_log_can_be_read_while_the_server_runs(tmp_path: Path) -> None:
    log = anyio.Path(tmp_path / "access.jsonl")
    async with running(log=Path(log)) as (simulator, session):
        await _bytes(session, simulator, body())
        await anyio.sleep(0.5)

        assert (await log.read_text()).endswith("}\n")


async def test_an_existing_log_is_appended_to(tmp_path: Path) -> None:
    log = anyio.Path(tmp_path / "access.jsonl")
    for _ in range(2):
        async with running(log=Path(log)) as (simulator, session):
            await _bytes(session, simulator, body())

    assert len((await log.read_text()).splitlines()) == 2


async def test_a_log_that_cannot_be_opened_is_a_fault_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"log .*is a directory"):
        async with serving(Settings(log=tmp_path)):
            pass


async def test_it_ends_at_once_and_leaves_no_task_with_requests_in_flight() -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with serving(Settings(stall_rate=0.5, latency_s=30)) as simulator:
            posts = [asyncio.ensure_future(_bytes(session, simulator, body(number))) for number in range(10)]
            while simulator.counts.requests < 10:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            began = time.monotonic()

        assert time.monotonic() - began < 1
        results = await asyncio.gather(*posts, return_exceptions=True)

    assert all(isinstance(result, aiohttp.ClientError) for result in results)
    assert asyncio.all_tasks() == before


async def test_an_error_inside_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(Settings(log=tmp_path / "access.jsonl")):
            raise ZeroDivisionError


async def test_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(JobError, match=f"cannot listen on '127.0.0.1:{port}': address already in use; port 0"):
            async with serving(Settings(port=port)):
                pass


def test_settings_name_every_fault_at_once() -> None:
    with pytest.raises(JobError) as error:
        Settings(requests_per_minute=0, error_rate=1.5, latency_s=-1)

    assert [fault.split(":")[1].strip() for fault in error.value.faults] == [
        "requests_per_minute",
        "latency_s",
        "error_rate",
        "error_rate, cut_rate, stall_rate, garbage_rate",
    ]
