"""Every form in which a server answers, or fails to, over real sockets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from event_loops import anyio_backend  # noqa: F401
from faulty_server import FaultyServer, plain, streamed

from batchrunner.errors import RequestError
from batchrunner.records import Reply, Request
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire(clocks=Clocks(first_byte_s=5, idle_s=5)) as wire:
        yield wire


async def answered(wire: Wire, server: FaultyServer, *replies: Mapping[str, Any], stream: bool = False) -> Reply:
    """What the wire makes of the last of `replies`, each to a request of its own."""
    server.replies.extend(replies)
    line = wire.prepare(server.url, {"authorization": "Bearer k"})
    request = Request(path="/v1/chat/completions", body=b'{"messages": []}', stream=stream, key="k")
    for _ in replies[1:]:
        await wire.send(line, request)
    return await wire.send(line, request)


async def failed(wire: Wire, server: FaultyServer, *replies: Mapping[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await answered(wire, server, *replies)
    return caught.value


async def test_a_plain_body_comes_back_whole(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {"status": 200, "headers": JSON, "body": '{"a": "é"}'})

    assert (reply.status, reply.body, reply.events, reply.cut) == (200, '{"a": "é"}'.encode(), None, None)
    assert reply.headers["content-type"] == "application/json"


async def test_the_request_arrives_as_it_was_built(wire: Wire, server: FaultyServer) -> None:
    line = wire.prepare(f"{server.url}/base/", {"Authorization": "Bearer 1|k", "x-workspace-id": "11"})
    request = Request(path="/agents/a%20b/chat?api-version=1", body=b"[1]", stream=False, key="k")

    await wire.send(line, request)

    seen = server.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/base/agents/a%20b/chat?api-version=1", b"[1]")
    assert seen.headers["authorization"] == "Bearer 1|k"
    assert seen.headers["x-workspace-id"] == "11"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("batchrunner/")
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(("stream", "accept"), [(True, "text/event-stream"), (False, "application/json")])
async def test_accept_goes_with_stream(wire: Wire, server: FaultyServer, stream: bool, accept: str) -> None:
    await answered(wire, server, plain("hi"), stream=stream)

    assert server.seen[0].headers["accept"] == accept


async def test_events_come_back_in_order(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, streamed("hello"), stream=True)

    assert reply.events is not None
    assert ['"he"' in reply.events[0].data, '"llo"' in reply.events[1].data] == [True, True]
    assert (len(reply.events), reply.done, reply.body, reply.cut) == (4, True, b"", None)


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_events_may_be_split_anywhere(wire: Wire, server: FaultyServer, size: int) -> None:
    reply = await answered(wire, server, {**streamed("héllo"), "chunk_bytes": size}, stream=True)

    assert reply.events is not None
    assert (len(reply.events), reply.done) == (4, True)


async def test_the_body_decides_what_it_is(wire: Wire, server: FaultyServer) -> None:
    unlabelled = await answered(wire, server, {"headers": JSON, "body": "\ufeff\n\ndata: {}\n\ndata: [DONE]\n\n"})
    mislabelled = await answered(wire, server, {"headers": EVENTS, "body": ' {"error": 1}'})

    assert ([event.data for event in unlabelled.events or ()], unlabelled.done) == (["{}"], True)
    assert (mislabelled.body, mislabelled.events) == (b' {"error": 1}', None)


async def test_a_status_is_never_raised(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {"status": 503, "headers": {"Retry-After": ["5", "7"]}, "body": "down"})

    assert (reply.status, reply.body, reply.headers["retry-after"]) == (503, b"down", "5, 7")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_target_of_a_redirect_sees_nothing(wire: Wire, server: FaultyServer, status: int) -> None:
    async with FaultyServer() as elsewhere:
        reply = await answered(wire, server, {"status": status, "headers": {"Location": f"{elsewhere.url}/x"}})

        assert (reply.status, elsewhere.seen, elsewhere.connections) == (status, [], 0)


async def test_cookies_are_not_sent_back(wire: Wire, server: FaultyServer) -> None:
    await answered(wire, server, {"headers": {"Set-Cookie": "a=b; Path=/"}, "body": "{}"}, plain("hi"))

    assert "cookie" not in server.seen[1].headers


async def test_one_connection_serves_many_requests(wire: Wire, server: FaultyServer) -> None:
    await answered(wire, server, plain("a"), streamed("b"), {"status": 429, "body": ""}, plain("c"))

    assert (len(server.seen), server.connections) == (4, 1)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_cut_body_is_handed_over_as_cut(wire: Wire, server: FaultyServer, framing: str) -> None:
    reply = await answered(wire, server, {"headers": JSON, "body": '{"a', "end": "cut", "framing": framing})

    assert (reply.body, reply.cut) == (b'{"a', "the connection was closed before the end of the reply")


@pytest.mark.parametrize("rest", ["", "data: 2", 'data: {"a', "dat"])
async def test_events_before_a_cut_are_kept_and_half_a_line_is_not(wire: Wire, server: FaultyServer, rest: str) -> None:
    reply = await answered(wire, server, {"headers": EVENTS, "body": f"data: 0\n\ndata: 1\n{rest}", "end": "cut"})

    assert [event.data for event in reply.events or ()] == (["0"] if rest else ["0", "1"])
    assert (reply.done, reply.cut is not None) == (False, True)


async def test_a_body_without_a_length_ends_with_its_connection(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {"headers": JSON, "body": '{"a', "end": "close"})

    assert (reply.body, reply.cut) == (b'{"a', None)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_reset_in_the_body_is_an_error(wire: Wire, server: FaultyServer, framing: str) -> None:
    error = await failed(wire, server, {"headers": JSON, "body": '{"a', "end": "rst", "framing": framing})

    assert (error.verdict, error.error_type, error.went_out, error.status) == ("retry", "connection", True, 200)
    assert "ReadError: connection reset by peer" in str(error)


@pytest.mark.parametrize("pause_ms", [0, 5])
@pytest.mark.parametrize("headers", [{"Content-Length": "7"}, {"Content-Length": "7", "Connection": "close"}])
async def test_a_reset_behind_a_whole_reply_is_nobodys_trouble(
    wire: Wire, server: FaultyServer, headers: Mapping[str, str], pause_ms: int
) -> None:
    whole = {"headers": headers, "body": '{"a":1}', "end": "rst", "chunk_bytes": 4, "pause_ms": pause_ms}

    for _ in range(10):
        reply = await answered(wire, server, whole)
        assert (reply.body, reply.cut) == (b'{"a":1}', None)
        assert await server.quiet()
        await anyio.sleep(0.01)


async def test_a_reset_does_not_hide_an_error_status(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {"status": 429, "headers": JSON, "body": '{"a', "end": "rst"})

    assert (reply.status, reply.cut is not None) == (429, True)


async def test_no_reply_is_a_connection_error(wire: Wire, server: FaultyServer) -> None:
    error = await failed(wire, server, {"end": "no_reply"})

    assert (error.verdict, error.error_type, error.went_out, error.wait_s) == ("retry", "connection", True, None)
    assert f"no answer from 127.0.0.1:{server.port}" in str(error)


async def test_a_stale_connection_asks_for_another_try_at_once(wire: Wire, server: FaultyServer) -> None:
    error = await failed(wire, server, plain("hi"), {"end": "no_reply"})

    assert (error.error_type, error.wait_s) == ("connection", 0.0)
    assert "had closed the idle connection that was used again" in str(error)


async def test_a_reused_connection_that_breaks_in_the_body_is_not_stale(wire: Wire, server: FaultyServer) -> None:
    error = await failed(wire, server, plain("hi"), {"headers": JSON, "body": "{", "end": "rst"})

    assert error.wait_s is None


async def test_a_refused_connection_sent_nothing(wire: Wire, server: FaultyServer) -> None:
    error = await failed(wire, server, {"end": "refused"})

    assert (error.verdict, error.error_type, error.went_out) == ("retry", "connection", False)
    assert str(error) == f"cannot connect to 127.0.0.1:{server.port} (ConnectError: connection refused)"


async def test_an_unknown_host_sent_nothing(wire: Wire) -> None:
    line = wire.prepare("http://nowhere.invalid", {})

    with pytest.raises(RequestError, match=r"cannot find the address of nowhere.invalid:80") as caught:
        await wire.send(line, Request(path="/", body=b"{}", stream=False, key="k"))

    assert (caught.value.verdict, caught.value.error_type, caught.value.went_out) == ("retry", "connection", False)


@pytest.mark.parametrize(
    "raw",
    [
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Len",
        "SSH-2.0-OpenSSH_9.7\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        "HTTP/1.1 200 OK\r\nX: " + "y" * 70_000 + "\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" + "".join(f"X-{i}: {'y' * 2000}\r\n" for i in range(40)) + "Content-Length: 0\r\n\r\n",
    ],
    ids=["illegal", "half a head", "another protocol", "tls alert", "one long header", "many headers"],
)
async def test_a_head_that_is_none_is_a_connection_error(wire: Wire, server: FaultyServer, raw: str | bytes) -> None:
    error = await failed(wire, server, {"end": "raw", "raw": raw})

    assert (error.verdict, error.error_type, error.went_out) == ("retry", "connection", True)


async def test_a_head_of_many_short_headers_is_read(wire: Wire, server: FaultyServer) -> None:
    headers = {f"X-{i}": "y" * 500 for i in range(60)}

    reply = await answered(wire, server, {"headers": headers, "body": "{}"})

    assert reply.headers["x-59"] == "y" * 500


async def test_garbage_between_chunks_cuts_the_reply_at_once(wire: Wire, server: FaultyServer) -> None:
    body = '5\r\n{"a":\r\nzz\r\n'
    garbled = {"headers": {"Transfer-Encoding": "chunked"}, "framing": "raw", "body": body, "chunk_bytes": 10}

    reply = await answered(wire, server, {**garbled, "pause_ms": 50})

    assert (reply.body, reply.cut is not None) == (b'{"a":', True)
    assert reply.latency_s < 1.0


async def test_early_hints_are_passed_over(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {**plain("hi"), "early_hints": True})

    assert (reply.status, b'"hi"' in reply.body) == (200, True)


@pytest.mark.parametrize("body", ["", '{"error": {"message": "too large"}}'])
async def test_an_answer_before_the_upload_ends_is_seen(wire: Wire, server: FaultyServer, body: str) -> None:
    server.replies.append({"status": 413, "headers": {"Connection": "close"}, "body": body, "end": "early"})
    line = wire.prepare(server.url, {})

    reply = await wire.send(line, Request(path="/", body=b"x" * 16_000_000, stream=False, key="k"))

    assert reply.status == 413


async def test_a_large_request_arrives_whole(wire: Wire, server: FaultyServer) -> None:
    line = wire.prepare(server.url, {})

    await wire.send(line, Request(path="/", body=b"x" * 16_000_000, stream=False, key="k"))

    assert len(server.seen[0].body) == 16_000_000


@pytest.mark.parametrize("end", ["hang", "drip_forever"])
async def test_a_stream_that_does_not_end_after_done_gives_its_connection_up(
    wire: Wire, server: FaultyServer, end: str
) -> None:
    started = time.monotonic()

    reply = await answered(wire, server, {**streamed("hi"), "end": end, "pause_ms": 20})

    waited_s = time.monotonic() - started
    assert (reply.done, reply.cut) == (True, None)
    assert reply.latency_s + 0.05 < waited_s < 2.0
    assert await server.quiet()


async def test_a_reset_after_done_is_nobodys_trouble(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {**streamed("hi"), "end": "rst"})

    assert (reply.done, reply.cut) == (True, None)


async def test_latency_and_first_token_are_measured(wire: Wire, server: FaultyServer) -> None:
    server.latency_s = 0.1
    slow = {"headers": EVENTS, "body": "data: 1\n\ndata: [DONE]\n\n", "chunk_bytes": 9, "pause_ms": 150}

    reply = await answered(wire, server, slow)

    assert reply.first_token_s is not None
    assert reply.first_token_s >= 0.1
    assert 0.2 < reply.latency_s - reply.first_token_s < 1.0


async def test_a_reply_without_content_has_no_first_token(wire: Wire, server: FaultyServer) -> None:
    reply = await answered(wire, server, {"status": 200, "headers": EVENTS, "body": ": nothing\n\n"})

    assert (reply.events, reply.first_token_s) == ((), None)


FINISHED = 'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize("end", ["rst", "hang"])
async def test_a_stream_that_has_finished_is_kept_whatever_comes_after(server: FaultyServer, end: str) -> None:
    server.replies.append({"status": 200, "headers": EVENTS, "body": FINISHED, "end": end})
    request = Request(path="/", body=b"{}", stream=True, key="k")

    async with Wire(clocks=Clocks(first_byte_s=1, idle_s=0.3)) as wire:
        reply = await wire.send(wire.prepare(server.url, {}), request)

    assert reply.cut
    assert [event.data for event in reply.events or ()] == [FINISHED[6:].strip()]
