"""One connection of the direct transport against a peer that says any bytes at any moment."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from event_loops import anyio_backend  # noqa: F401
from raw_peer import RawPeer, reset

from batchrunner.errors import RequestError
from batchrunner.records import Reply, Request
from batchrunner.transport import Clocks, DirectTransport, Wire
from batchrunner.transport.dial import Dialler, Names, Origin
from batchrunner.transport.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from faulty_server import FaultyServer

    from batchrunner.transport.connection import Connection

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOTS = 100_000


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire(clocks=Clocks(first_byte_s=2, idle_s=2)) as wire:
        yield wire


async def sent(wire: Wire, peer: RawPeer, body: bytes = b"{}") -> Reply:
    line = wire.prepare(peer.url, {"authorization": "Bearer k"})
    return await wire.send(line, Request(path="/x", body=body, stream=False, key="k"))


async def failed(wire: Wire, peer: RawPeer, body: bytes = b"{}") -> RequestError:
    with pytest.raises(RequestError) as caught:
        await sent(wire, peer, body)
    return caught.value


def slowly(*pieces: bytes) -> Any:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            if writer.is_closing():
                return
            writer.write(piece)
            await asyncio.sleep(0.001)

    return answer


def then(what: Callable[[asyncio.StreamWriter], object], *pieces: bytes) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await slowly(*pieces)(reader, writer)
        await asyncio.sleep(0.01)
        what(writer)

    return answer


async def test_a_connection_serves_one_request_after_another(wire: Wire) -> None:
    async with RawPeer(OK + b"{}", CHUNKED + b"2\r\n[]\r\n0\r\n\r\n", OK + b"33") as peer:
        bodies = [(await sent(wire, peer, body)).body for body in (b"1", b"22", b"")]

    assert bodies == [b"{}", b"[]", b"33"]
    assert len(peer.writers) == 1
    assert [request.partition(b"\r\n\r\n")[2] for request in peer.requests] == [b"1", b"22", b""]


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"{}",
        CHUNKED + b'1;name="a b"\r\n{\r\n01\r\n}\r\n0\r\nx-after: 1\r\nx-more:\r\n\r\n',
        b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK + b"{}",
    ],
    ids=["length", "chunked", "interim"],
)
async def test_bytes_may_come_one_by_one(wire: Wire, reply: bytes) -> None:
    async with RawPeer(slowly(*(bytes([byte]) for byte in reply)), OK + b"[]") as peer:
        first, second = await sent(wire, peer), await sent(wire, peer)

    assert (first.status, first.body, first.cut, "link" in first.headers) == (200, b"{}", None, False)
    assert (second.headers, second.body) == ({"content-length": "2"}, b"[]")
    assert len(peer.writers) == 1


@pytest.mark.parametrize(
    "unasked", [OK + b"no", b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\r\n", b"x"], ids=["reply", "408", "CRLF", "x"]
)
async def test_what_is_said_unasked_is_nobodys_answer(wire: Wire, unasked: bytes) -> None:
    async with RawPeer(OK + b"{}", OK + b"[]") as peer:
        await sent(wire, peer)
        peer.writers[0].write(unasked)
        await peer.until_ended(1)
        reply = await sent(wire, peer)

    assert (reply.status, reply.body, len(peer.writers)) == (200, b"[]", 2)


@pytest.mark.parametrize(
    ("unasked", "connections"), [(OK + b"no", 4), (b"HTTP/1.1 408 Request Timeout\r\n\r\n", 2)], ids=["reply", "408"]
)
async def test_a_server_that_answers_unasked_is_given_no_connection_twice(
    wire: Wire, unasked: bytes, connections: int
) -> None:
    async with RawPeer(*[OK + b"{}"] * 4) as peer:
        await sent(wire, peer)
        peer.writers[0].write(unasked)
        await peer.until_ended(1)
        for _ in range(3):
            await sent(wire, peer)

    assert len(peer.writers) == connections


async def test_what_was_said_unasked_and_not_read_yet_is_nobodys_answer_either(wire: Wire) -> None:
    async with RawPeer(OK + b"{}", OK + b"[]") as peer:
        await sent(wire, peer)
        peer.writers[0].write(OK + b"no")  # At once with the kernel; the loop has no time to read it.
        reply = await sent(wire, peer)

    assert (reply.status, reply.body, len(peer.writers)) == (200, b"[]", 2)


@pytest.mark.parametrize("more", [OK + b"no", b"HTTP", b"garbage", b"\x00"])
async def test_what_follows_a_reply_ends_the_connection_and_spares_the_reply(wire: Wire, more: bytes) -> None:
    async with RawPeer(OK + b"{}" + more, OK + b"[]") as peer:
        first = await sent(wire, peer)
        await peer.until_ended(1)
        second = await sent(wire, peer)

    assert (first.body, first.cut, second.body, len(peer.writers)) == (b"{}", None, b"[]", 2)


@pytest.mark.parametrize("how", [asyncio.StreamWriter.close, reset], ids=["close", "reset"])
async def test_a_connection_that_ends_while_idle_costs_no_attempt(wire: Wire, how: Any) -> None:
    async with RawPeer(OK + b"{}", OK + b"[]") as peer:
        await sent(wire, peer)
        how(peer.writers[0])
        await asyncio.sleep(0.02)
        reply = await sent(wire, peer)

    assert (reply.body, len(peer.writers)) == (b"[]", 2)


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\n", True),
    ],
    ids=["close", "1.0", "1.0 kept", "1.1 said twice"],
)
async def test_the_peer_says_whether_a_connection_is_kept(wire: Wire, head: bytes, keeps: bool) -> None:
    async with RawPeer(head + b"{}", OK + b"[]") as peer:
        first, second = await sent(wire, peer), await sent(wire, peer)

    assert (first.body, second.body, len(peer.writers)) == (b"{}", b"[]", 1 if keeps else 2)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified\r\nContent-Length: 9"])
async def test_a_status_may_have_no_body(wire: Wire, status: bytes) -> None:
    async with RawPeer(b"HTTP/1.1 " + status + b"\r\n\r\n", OK + b"[]") as peer:
        first, second = await sent(wire, peer), await sent(wire, peer)

    assert (first.status, first.body, second.body) == (int(status[:3]), b"", b"[]")
    assert len(peer.writers) == 1


async def test_another_protocol_is_no_answer_and_no_connection_to_keep(wire: Wire) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00"
    async with RawPeer(switching, OK + b"[]") as peer:
        first = await sent(wire, peer)
        await peer.until_ended(1)

    assert (first.status, first.body) == (101, b"")


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"{}"),
        (CHUNKED + b"2\r\n{}\r\n", b"{}"),
        (CHUNKED + b"9\r\n{}", b"{}"),
        (CHUNKED + b"2\r\n{}\r\n0\r\nx-after: 1\r\n", b"{}"),
    ],
    ids=["length", "no last chunk", "in a chunk", "in the trailers"],
)
async def test_an_end_before_the_frames_end_cuts_the_reply(wire: Wire, reply: bytes, body: bytes) -> None:
    async with RawPeer(then(asyncio.StreamWriter.close, reply)) as peer:
        cut = await sent(wire, peer)

    assert (cut.body, cut.cut) == (body, "the connection was closed before the end of the reply")


@pytest.mark.parametrize("part", [b"HTTP/1.1 2", OK, OK + b"{"], ids=["in the head", "behind it", "in the body"])
async def test_a_reset_is_told_as_one(wire: Wire, part: bytes) -> None:
    async with RawPeer(then(reset, part)) as peer:
        error = await failed(wire, peer)

    assert (error.verdict, error.error_type, error.went_out) == ("retry", "connection", True)
    assert error.status == (200 if part.startswith(OK) else None)
    assert "ReadError: connection reset by peer" in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        OK[:-2] + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx" + b"y" * LOTS,
        b"HTTP/1.1 200 OK\r\n" + b"x: yyyyyyyyyyyy\r\n" * (LOTS // 12) + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (LOTS // 10),
        b"\r\n" * LOTS,
    ],
    ids=["two framings", "two lengths", "a false length", "no status", "a NUL", "a head without end", "a large head",
         "interim without end", "blanks without end"],
)  # fmt: skip
async def test_what_is_no_reply_is_refused(wire: Wire, raw: bytes) -> None:
    async with RawPeer(slowly(raw)) as peer:
        error = await failed(wire, peer)
        await peer.until_ended(1)

    assert (error.verdict, error.error_type, error.went_out) == ("retry", "connection", True)
    assert "(RemoteProtocolError: " in str(error)


@pytest.mark.parametrize("rest", [b"0\r\nx: " + b"y" * LOTS, b"2;" + b"y" * LOTS], ids=["trailers", "an extension"])
async def test_what_brings_no_body_does_not_go_on_for_ever(wire: Wire, rest: bytes) -> None:
    pieces = [rest[start : start + 10_000] for start in range(0, LOTS, 10_000)]
    async with RawPeer(slowly(CHUNKED + b"2\r\n{}\r\n", *pieces)) as peer:
        reply = await sent(wire, peer)
        await peer.until_ended(1)

    assert (reply.body, reply.cut is not None) == (b"{}", True)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 2", OK + b"{"], ids=["before", "in the head", "in the body"])
async def test_cancelling_closes_the_connection_at_once(wire: Wire, part: bytes) -> None:
    async with RawPeer(slowly(part), OK + b"[]") as peer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sent(wire, peer), 0.05)
        await peer.until_ended(1)
        reply = await sent(wire, peer)

    assert (reply.body, len(peer.writers)) == (b"[]", 2)


async def test_an_answer_before_the_upload_ends_is_taken_and_its_connection_is_not(wire: Wire) -> None:
    async with RawPeer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", OK + b"[]", hasty=True) as peer:
        early = await sent(wire, peer, b"x" * 20_000_000)
        reply = await sent(wire, peer)

    assert (early.status, reply.body, len(peer.writers)) == (413, b"[]", 2)


async def test_an_idle_connection_is_closed_in_time() -> None:
    transport = DirectTransport(idle_s=0.05)
    async with RawPeer(OK + b"{}", OK + b"[]") as peer, httpx.AsyncClient(transport=transport) as client:
        await client.post(peer.url)
        await peer.until_ended(1)
        await client.post(peer.url)

    assert len(peer.writers) == 2


async def test_a_reader_that_takes_its_time_holds_the_peer_and_not_the_connection() -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n" + b"y" * 16_000_000
    async with RawPeer(large, OK + b"[]") as peer, httpx.AsyncClient(transport=DirectTransport()) as client:
        async with client.stream("POST", peer.url) as slow:
            await asyncio.sleep(0.1)
            kept_back = peer.writers[0].transport.get_write_buffer_size()
            size = sum([len(chunk) async for chunk in slow.aiter_raw()])
        second = await client.post(peer.url)

    assert (kept_back > 1_000_000, size, second.content, len(peer.writers)) == (True, 16_000_000, b"[]", 1)


async def test_a_reply_to_head_has_no_body() -> None:
    async with RawPeer(OK) as peer, httpx.AsyncClient(transport=DirectTransport()) as client:
        reply = await client.head(peer.url)

    assert (reply.headers["content-length"], reply.content) == ("2", b"")


async def test_the_end_of_a_transport_ends_what_is_under_way() -> None:
    async with RawPeer(slowly(OK + b"{")) as peer:
        transport = DirectTransport()
        request = httpx.Request("POST", peer.url, content=b"{}")
        response = await transport.handle_async_request(request)
        await asyncio.wait_for(transport.aclose(), 2)
        await peer.until_ended(1)
        with pytest.raises(httpx.ReadError, match="the transport was closed"):
            await response.aread()


async def test_a_fault_of_whoever_receives_is_not_taken_for_the_peers(wire: Wire) -> None:
    class Broken:
        error: Exception | None = None

        def sent(self) -> None: ...

        def begun(self, status: int, headers: object) -> bool:
            raise KeyError("mine")

        def took(self, data: bytes) -> bool:
            return True

        def ended(self, error: Exception | None) -> None:
            self.error = error

    async with RawPeer(OK + b"{}") as peer:
        transport, receiver = DirectTransport(), Broken()
        pool = transport.pool(Origin("127.0.0.1", peer.port, False))
        connection = await pool.connected(lambda: None)
        connection.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", receiver)
        await peer.until_ended(1)
        await transport.aclose()

    assert isinstance(receiver.error, KeyError)


async def test_connections_are_made_a_few_at_a_time() -> None:
    class Counting(Dialler):
        now = most = 0

        async def dial(self, origin: Origin, made: Callable[[], Connection]) -> Connection:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            try:
                return await super().dial(origin, made)
            finally:
                self.now -= 1

    async with RawPeer() as peer:
        dialler = Counting(httpx.create_ssl_context)
        pool = Pool(Origin("127.0.0.1", peer.port, False), dialler, dials=3)
        connections = await asyncio.gather(*(pool.connected(lambda: None) for _ in range(20)))
        await pool.aclose()

    assert (dialler.most, len({*connections})) == (3, 20)


class TwoAddresses(Names):
    """The first of them leads nowhere."""

    async def look_up(self, host: str, port: int) -> list[Any]:
        [found] = await super().look_up(host, port)
        return [(*found[:4], (host, 1)), found]


async def test_another_address_is_tried_when_one_leads_nowhere(secure: FaultyServer, certificate: Path) -> None:
    dialler = Dialler(lambda: ssl.create_default_context(cafile=str(certificate)))
    dialler._names = TwoAddresses()
    async with RawPeer() as peer:
        for origin in (Origin("127.0.0.1", peer.port, False), Origin("127.0.0.1", secure.port, True)):
            pool = Pool(origin, dialler)
            assert (await pool.connected(lambda: None)).usable
            await pool.aclose()

    with pytest.raises(httpx.ConnectError, match="connection refused"):
        await Pool(Origin("127.0.0.1", peer.port, False), dialler).connected(lambda: None)


async def test_a_name_is_asked_for_once_however_many_want_it() -> None:
    names = Names()
    given_up = asyncio.ensure_future(names.look_up("localhost", 80))
    await asyncio.sleep(0)
    given_up.cancel()

    found = await asyncio.gather(*(names.look_up("localhost", 80) for _ in range(10)))

    assert {address[4][1] for addresses in found for address in addresses} == {80}
    assert len(names._asking) == 1
    assert await names.look_up("::1", 81) == [*await names.look_up("::1", 81)]
    names.close()


async def test_a_name_that_is_not_found_is_asked_for_again() -> None:
    names = Names()
    for _ in range(2):
        with pytest.raises(OSError):
            await names.look_up("nowhere.invalid", 80)
        await asyncio.sleep(0)
        assert names._asking == {}
