"""The four clocks and the deadline, and what is left behind when one runs out."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from event_loops import anyio_backend  # noqa: F401
from faulty_server import FaultyServer, plain

from batchrunner.errors import RequestError
from batchrunner.records import Reply, Request
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio

EVENTS = {"Content-Type": "text/event-stream"}
REQUEST = Request(path="/v1/chat/completions", body=b"{}", stream=True, key="k")
SHORT_S = 0.15
LATE_S = 1.0


async def sent(server: FaultyServer, clocks: Clocks, *replies: Mapping[str, Any], left_s: float | None = None) -> Reply:
    server.replies.extend(replies)
    async with Wire(clocks=clocks) as wire:
        deadline = None if left_s is None else time.monotonic() + left_s
        return await wire.send(wire.prepare(server.url, {}), REQUEST, deadline=deadline)


async def timed_out(
    server: FaultyServer, clocks: Clocks, reply: Mapping[str, Any], *, left_s: float | None = None
) -> RequestError:
    """The error when a clock runs out; it must come in time and leave no connection behind."""
    started = time.monotonic()
    with pytest.raises(RequestError) as caught:
        await sent(server, clocks, reply, left_s=left_s)
    assert SHORT_S - 0.01 <= time.monotonic() - started < SHORT_S + LATE_S
    assert await server.quiet()
    assert (caught.value.verdict, caught.value.error_type) == ("retry", "timeout")
    return caught.value


@pytest.mark.parametrize(
    "reply",
    [
        {"end": "hang", "headers": {"Content-Type": "application/json"}},
        {"end": "hang", "headers": EVENTS, "body": ": waiting\n\n"},
        {"end": "drip_forever", "headers": EVENTS, "body": ": keep-alive\n\n", "pause_ms": 20},
        {"end": "drip_forever", "headers": EVENTS, "body": "data: \n\n", "pause_ms": 20},
        {"end": "drip_forever", "headers": {"Content-Type": "application/json"}, "body": "\n", "pause_ms": 20},
        {"end": "raw", "raw": "", "keep": True},
        {"end": "raw", "raw": "HTTP/1.1 200 O", "keep": True},
    ],
    ids=["silence", "a comment", "comments", "heartbeats", "blank lines", "no head", "half a head"],
)
async def test_the_first_byte_clock_waits_for_content_alone(server: FaultyServer, reply: Mapping[str, Any]) -> None:
    error = await timed_out(server, Clocks(first_byte_s=SHORT_S), reply)

    assert error.went_out
    assert str(error) == f"no content from 127.0.0.1:{server.port} within 0.15 s (timeouts.first_byte_s)"


@pytest.mark.parametrize(
    "reply",
    [
        {"end": "hang", "headers": EVENTS, "body": "data: 1\n\n"},
        {"end": "hang", "headers": {"Content-Type": "application/json"}, "body": '{"a":'},
        {
            "end": "drip_forever",
            "headers": EVENTS,
            "body": "data: 1\n\n" + ": keep-alive\n\n" * 2000,
            "chunk_bytes": 100,
        },
    ],
    ids=["stream", "plain", "comments after content"],
)
async def test_the_idle_clock_runs_between_bytes_of_content(server: FaultyServer, reply: Mapping[str, Any]) -> None:
    error = await timed_out(server, Clocks(idle_s=SHORT_S), {**reply, "pause_ms": 10})

    assert error.went_out
    assert str(error) == f"no more content from 127.0.0.1:{server.port} for 0.15 s (timeouts.idle_s)"


@pytest.mark.parametrize("body", ["data: 1\n\n", "1", '"'], ids=["events", "plain", "one long string"])
async def test_the_attempt_clock_ends_what_never_stops_talking(server: FaultyServer, body: str) -> None:
    drip = {"end": "drip_forever", "headers": {"Content-Type": "application/json"}, "body": body, "pause_ms": 20}

    error = await timed_out(server, Clocks(attempt_s=SHORT_S), drip)

    assert error.went_out
    assert str(error) == f"the reply of 127.0.0.1:{server.port} did not end within 0.15 s (timeouts.attempt_s)"


async def test_one_long_event_is_content_all_along(server: FaultyServer) -> None:
    body = 'data: {"a": "' + "y" * 300 + '"}\n\ndata: [DONE]\n\n'
    slow = {"headers": EVENTS, "body": body, "chunk_bytes": 30, "pause_ms": 60}

    reply = await sent(server, Clocks(idle_s=2 * SHORT_S), slow)

    assert (reply.done, reply.latency_s > 2 * SHORT_S) == (True, True)


async def test_the_connect_clock_ends_a_connection_that_is_not_taken() -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        async with Wire(clocks=Clocks(connect_s=SHORT_S)) as wire:
            line = wire.prepare(f"http://127.0.0.1:{deaf.getsockname()[1]}", {})
            with pytest.raises(RequestError, match=r"no connection to 127.0.0.1:\d+ within 0.15 s") as caught:
                await wire.send(line, REQUEST)

    assert (caught.value.error_type, caught.value.went_out) == ("timeout", False)


async def test_an_upload_that_is_not_read_did_not_go_out() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        async with Wire(clocks=Clocks(first_byte_s=SHORT_S)) as wire:
            line = wire.prepare(f"http://127.0.0.1:{deaf.getsockname()[1]}", {})
            with pytest.raises(RequestError, match="first_byte_s") as caught:
                await wire.send(line, Request(path="/", body=b"x" * 32_000_000, stream=False, key="k"))

    assert caught.value.went_out is False


async def test_an_upload_that_is_given_up_is_not_sent_on() -> None:
    """Else each attempt would leave its connection and its request behind, until the peer reads them."""
    read, body = 0, b"x" * 32_000_000
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        async with Wire(clocks=Clocks(first_byte_s=SHORT_S)) as wire:
            line = wire.prepare(f"http://127.0.0.1:{deaf.getsockname()[1]}", {})
            with pytest.raises(RequestError, match="first_byte_s"):
                await wire.send(line, Request(path="/", body=body, stream=False, key="k"))
        with deaf.accept()[0] as peer, suppress(ConnectionResetError):
            peer.setblocking(False)
            while some := await asyncio.get_running_loop().sock_recv(peer, 2**20):
                read += len(some)

    assert read < len(body)


async def test_the_deadline_of_the_item_ends_an_attempt(server: FaultyServer) -> None:
    error = await timed_out(server, Clocks(), {"end": "hang"}, left_s=SHORT_S)

    assert error.went_out
    assert "the deadline of the item or the run came after 0." in str(error)


async def test_nothing_is_sent_after_the_deadline(server: FaultyServer) -> None:
    with pytest.raises(RequestError, match="deadline") as caught:
        await sent(server, Clocks(), plain("hi"), left_s=-1.0)

    assert (caught.value.went_out, server.connections) == (False, 0)


async def test_an_error_status_is_worth_more_than_a_clock(server: FaultyServer) -> None:
    reply = await sent(server, Clocks(first_byte_s=SHORT_S), {"status": 401, "end": "hang"})

    assert (reply.status, reply.body) == (401, b"")
    assert reply.cut is not None
    assert "timeouts.first_byte_s" in reply.cut


async def test_clocks_of_many_attempts_run_apart(server: FaultyServer) -> None:
    server.replies_by_url = {"/slow": {"end": "hang"}, "/quick": plain("hi")}
    replies: list[Reply] = []
    async with Wire(clocks=Clocks(first_byte_s=SHORT_S)) as wire, anyio.create_task_group() as group:
        line = wire.prepare(server.url, {})

        async def one(path: str) -> None:
            try:
                replies.append(await wire.send(line, Request(path=path, body=b"{}", stream=False, key="k")))
            except RequestError as error:
                assert error.error_type == "timeout"  # noqa: PT017

        for path in ["/slow", "/quick"] * 20:
            group.start_soon(one, path)

    assert len(replies) == 20
    assert len(server.seen) == 40


@pytest.mark.parametrize("native", [False, True])
async def test_cancellation_passes_through_and_leaves_nothing_open(server: FaultyServer, native: bool) -> None:
    server.default = {"end": "hang", "headers": EVENTS, "body": "data: 1\n\n"}
    async with Wire(clocks=Clocks()) as wire:
        line = wire.prepare(server.url, {})
        tasks = [asyncio.ensure_future(cancelled(wire, line, native=native)) for _ in range(5)]
        await anyio.sleep(0.1)
        for task in tasks:
            task.cancel() if native else None
        ends = await asyncio.gather(*tasks, return_exceptions=True)

        assert [isinstance(end, asyncio.CancelledError) if native else end for end in ends] == [True] * 5
        assert await server.quiet()
        assert wire._watch.attempts == set()


async def cancelled(wire: Wire, line: Any, *, native: bool) -> bool:
    with anyio.move_on_after(60 if native else 0.1) as scope:
        await wire.send(line, REQUEST)
    return scope.cancelled_caught


async def test_the_end_of_a_wire_closes_what_it_kept(server: FaultyServer) -> None:
    tasks = asyncio.all_tasks()

    await sent(server, Clocks(), plain("hi"))

    assert await server.quiet()
    assert {task for task in asyncio.all_tasks() - tasks if "faulty" not in repr(task)} == set()


async def test_an_error_leaves_the_block_of_a_wire_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Wire(clocks=Clocks()):
            raise KeyError("mine")


@pytest.mark.parametrize("native", [False, True])
async def test_cancelling_the_block_of_a_wire_works(server: FaultyServer, native: bool) -> None:
    server.default = {"end": "hang"}

    async def hold() -> None:
        async with Wire(clocks=Clocks()) as wire:
            await wire.send(wire.prepare(server.url, {}), REQUEST)

    if native:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hold(), SHORT_S)
    else:
        with anyio.move_on_after(SHORT_S) as scope:
            await hold()
        assert scope.cancelled_caught

    assert await server.quiet()
