"""The bounds of a reply over real sockets: its size, its encoding, its declared length, open files."""

from __future__ import annotations

import base64
import gzip
import resource
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from event_loops import anyio_backend  # noqa: F401

from batchrunner.errors import RequestError
from batchrunner.records import Reply, Request
from batchrunner.transport import Clocks, Wire, raise_open_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from faulty_server import FaultyServer

pytestmark = pytest.mark.anyio

REQUEST = Request(path="/v1/chat/completions", body=b"{}", stream=False, key="k")
ANSWER = b'{"choices": []}'


def packed(data: bytes, *, label: str = "gzip", **more: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Content-Encoding": label}
    return {"headers": headers, "body_b64": base64.b64encode(data).decode(), **more}


async def sent(server: FaultyServer, reply: Mapping[str, Any], *, max_reply_bytes: int = 32 * 1024 * 1024) -> Reply:
    server.replies.append(reply)
    async with Wire(clocks=Clocks(first_byte_s=5, idle_s=5), max_reply_bytes=max_reply_bytes) as wire:
        return await wire.send(wire.prepare(server.url, {}), REQUEST)


async def refused(
    server: FaultyServer, reply: Mapping[str, Any], *, max_reply_bytes: int = 32 * 1024 * 1024
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await sent(server, reply, max_reply_bytes=max_reply_bytes)
    assert await server.quiet()
    assert (caught.value.went_out, caught.value.status) == (True, 200)
    return caught.value


TWO_MEMBERS = gzip.compress(ANSWER[:5], mtime=0) + gzip.compress(ANSWER[5:], mtime=0)


@pytest.mark.parametrize("data", [gzip.compress(ANSWER, mtime=0), TWO_MEMBERS], ids=["one member", "two members"])
async def test_gzip_is_read_although_nobody_asked(server: FaultyServer, data: bytes) -> None:
    assert (await sent(server, packed(data))).body == ANSWER


async def test_gzip_cut_short_within_its_length_is_cut(server: FaultyServer) -> None:
    reply = await sent(server, packed(gzip.compress(ANSWER, mtime=0)[:-4]))

    assert reply.cut == "the gzip data broke off"


async def test_a_false_gzip_label_is_tried_again(server: FaultyServer) -> None:
    error = await refused(server, packed(ANSWER))

    assert (error.verdict, error.error_type) == ("retry", "malformed")


async def test_a_plain_body_called_br_is_read(server: FaultyServer) -> None:
    assert (await sent(server, packed(ANSWER, label="br"))).body == ANSWER


async def test_a_body_that_goes_on_behind_its_object_is_no_answer(server: FaultyServer) -> None:
    endless = {"body": b"{" + b"}" * 900, "chunk_bytes": 100, "pause_ms": 1, "framing": "chunked"}

    error = await refused(server, endless, max_reply_bytes=500)

    assert (error.verdict, error.error_type) == ("reject", "response_too_large")


async def test_a_bomb_is_refused(server: FaultyServer) -> None:
    error = await refused(server, packed(gzip.compress(b" " * 40_000_000, mtime=0)))

    assert (error.verdict, error.error_type) == ("reject", "response_too_large")


async def test_a_reply_above_the_cap_is_refused_on_the_way(server: FaultyServer) -> None:
    body = {"prefix": '{"a": "', "unit": "y", "count": 200_000, "suffix": '"}'}

    error = await refused(server, {"body_gen": body, "framing": "chunked"}, max_reply_bytes=100_000)

    assert (error.verdict, error.error_type) == ("reject", "response_too_large")


async def test_a_declared_length_above_the_cap_is_refused_unread(server: FaultyServer) -> None:
    error = await refused(
        server, {"headers": {"Content-Length": "99999999999"}, "body": "{", "end": "hang", "framing": "length"}
    )

    assert (error.verdict, error.error_type) == ("reject", "response_too_large")


async def test_an_error_status_is_kept_whatever_its_body(server: FaultyServer) -> None:
    huge = await sent(server, {"status": 503, "body": "x" * 2000}, max_reply_bytes=1000)
    false = await sent(server, {**packed(ANSWER), "status": 429})

    assert (huge.status, huge.cut) == (503, "the reply is larger than 1000 bytes")
    assert (false.status, false.cut) == (429, "the reply is called 'gzip' and is not, or is damaged")


async def test_thirty_megabytes_in_one_line_are_read_in_linear_time(server: FaultyServer) -> None:
    body = {"prefix": 'data: {"a":"', "unit": "y", "count": 30 * 1024 * 1024, "suffix": '"}\n\ndata: [DONE]\n\n'}
    started = time.monotonic()

    reply = await sent(server, {"headers": {"Content-Type": "text/event-stream"}, "body_gen": body})

    assert reply.events is not None
    assert (len(reply.events[0].data), reply.done) == (30 * 1024 * 1024 + 8, True)
    assert time.monotonic() - started < 10.0


@contextmanager
def open_files_limited_to(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_open_files_left() -> Iterator[None]:
    with socket.socket() as newest, ExitStack() as held, open_files_limited_to(newest.fileno() + 20):
        with suppress(OSError):
            while True:
                held.enter_context(socket.socket())
        yield


async def test_running_out_of_open_files_is_told_as_that(server: FaultyServer) -> None:
    async with Wire(clocks=Clocks()) as wire:
        line = wire.prepare(server.url, {})
        with no_open_files_left(), pytest.raises(RequestError) as caught:
            await wire.send(line, REQUEST)
        reply = await wire.send(line, REQUEST)

    assert (caught.value.verdict, caught.value.error_type, caught.value.went_out) == ("retry", "connection", False)
    assert "limit of open files" in str(caught.value)
    assert "ulimit -n" in str(caught.value)
    assert reply.status == 200


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with open_files_limited_to(256):
        assert raise_open_files() == hard
        assert raise_open_files() == hard


async def test_a_wire_raises_the_limit_of_open_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with open_files_limited_to(256):
        async with Wire(clocks=Clocks()):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
