"""The direct transport reads every well-formed reply as aiohttp does, however its bytes are split."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.transport import DirectTransport
from batchrunner.transport.adapter import AiohttpTransport

NAMES = ["X-A", "x-a", "Retry-After", "content-type", "Server", "X_b", "Set-Cookie"]
STATUSES = [200, 201, 400, 429, 503]
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
BLANKS = st.sampled_from(["", " ", "  ", "\t"])


@dataclass(frozen=True, slots=True)
class Case:
    reply: bytes
    cuts: tuple[int, ...]
    """Where the reply is split."""

    @property
    def pieces(self) -> list[bytes]:
        return [self.reply[start:end] for start, end in pairwise([0, *self.cuts, len(self.reply)])]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """The header that tells how a body is framed, and the body in its frame."""
    body = draw(st.binary(max_size=60))
    how = draw(st.sampled_from(["length", "chunked", "close"]))
    if how == "close":
        return "X-Framed: not", body
    if how == "length":
        return f"Content-Length: {len(body)}", body
    cuts = sorted(draw(st.sets(st.integers(1, 59), max_size=4)))
    chunks = [chunk for start, end in pairwise([0, *cuts, 60]) if (chunk := body[start:end])]
    extension = draw(st.sampled_from(["", ";a", ";a=b", ';a="b c"']))
    trailer = draw(st.sampled_from(["", "X-After: 1\r\n", "X-After:\r\nX-More: 2\r\n"]))
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension.encode(), chunk) for chunk in chunks)
    return "Transfer-Encoding: chunked", framed + f"0\r\n{trailer}\r\n".encode()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    told = draw(st.lists(st.tuples(st.sampled_from(NAMES), BLANKS, VALUES.map(str.strip), BLANKS), max_size=5))
    framing, body = draw(bodies())
    lines = [f"{name}:{before}{value}{after}" for name, before, value, after in told]
    lines.insert(draw(st.integers(0, len(lines))), framing)
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nx: y\r\n\r\n"]))
    status = draw(st.sampled_from(STATUSES))
    head = "\r\n".join([f"HTTP/1.{draw(st.integers(0, 1))} {status} Told", *lines]).encode("latin-1")
    reply = interim + head + b"\r\n\r\n" + body
    cuts = draw(st.sets(st.integers(1, len(reply) - 1), max_size=12))
    return Case(reply, tuple(sorted(cuts)))


async def read(transport: httpx.AsyncBaseTransport, case: Case) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in case.pieces:
            writer.write(piece)
            # The one loop serves both ends: the client reads this piece before the next is written.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server, transport:
        request = httpx.Request("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        response = await transport.handle_async_request(request)
        body = await response.aread()
        await response.aclose()
    return response.status_code, [(name.lower(), value) for name, value in response.headers.raw], body


async def compared(case: Case) -> None:
    assert await read(DirectTransport(), case) == await read(AiohttpTransport(), case)


@given(cases())
@settings(max_examples=30, deadline=None)
def test_replies_read_as_aiohttp_reads_them(case: Case) -> None:
    asyncio.run(compared(case))


@pytest.mark.slow
@given(cases())
@settings(max_examples=2000, deadline=None)
def test_many_replies_read_as_aiohttp_reads_them(case: Case) -> None:
    asyncio.run(compared(case))
