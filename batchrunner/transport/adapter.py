"""aiohttp under httpx's transport interface: httpx's requests, replies and exceptions, aiohttp's speed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError
from aiohttp.payload import Payload
from yarl import URL

from batchrunner.transport.connection import MAX_HEAD_BYTES
from batchrunner.transport.connector import TRIP, Connector, Handler, Trip
from batchrunner.transport.translation import translated

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractStreamWriter

_READ_BYTES = 256 * 1024
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
_AUTO_HEADERS = frozenset({b"accept", b"accept-encoding", b"user-agent", b"content-type"})


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends one request over a pool of kept connections. Serves any httpx client, or is called directly.

    TLS is always verified, by `ssl_context` where one is given. Redirects, cookies, `.netrc`, proxy variables
    and content encodings are left alone. A proxy is named for all requests (`proxy`) or for one
    (`request.extensions["proxy"]`). Timeouts are kept only if `request.extensions["timeout"]` asks for them,
    as httpx's clients do. The first request must come from the event loop that all of them run in.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, proxy: str | None = None) -> None:
        self._ssl = ssl_context
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trip = Trip(request.extensions.get("progress"))
        TRIP.set(trip)
        session = self._session or self._open()
        headers, not_added = _headers(request)
        try:
            response = await session.request(
                request.method,
                _address(str(request.url)),
                headers=headers,
                skip_auto_headers=not_added,
                data=await _payload(request, trip),
                allow_redirects=False,
                timeout=_timeout(request),
                proxy=request.extensions.get("proxy", self._proxy),
            )
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise translated(error, was_sent=trip.was_sent) from error
        finally:
            trip.drop()
        if len(b"".join(map(b"".join, response.raw_headers))) > MAX_HEAD_BYTES:
            response.close()
            raise httpx.RemoteProtocolError(f"the reply's headers are larger than {MAX_HEAD_BYTES} bytes")
        return httpx.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Body(response, trip),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("latin-1", "replace"),
            },
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=Connector(ssl=self._ssl if self._ssl is not None else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )
        return self._session


class _Bytes(Payload):
    """A request's body, written at once: a status that comes before the upload's end is then always read."""

    _autoclose = True

    def __init__(self, value: bytes, trip: Trip) -> None:
        super().__init__(value)
        self._size = len(value)
        self._trip = trip

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._value)
        self._trip.sent()

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await self.write(writer)


class _Body(httpx.AsyncByteStream):
    """The reply's bytes as they come in. Closing it early closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse, trip: Trip) -> None:
        self._response = response
        self._trip = trip
        self._framed = any(name.lower() in _FRAMES for name, _ in response.raw_headers)
        if isinstance(trip.protocol, Handler):
            trip.protocol.reading = response.content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            cause = self._trip.broken()
            raise translated(cause or error, was_sent=True) from error
        if chunk:
            return chunk
        # Where the end of the connection is the end of the body, a reset looks like an end.
        if not self._framed and (cause := self._trip.broken()) is not None:
            raise translated(cause, was_sent=True) from cause
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._response.close()
        self._trip.drop()


@lru_cache(maxsize=4096)
def _address(url: str) -> URL:
    return URL(url, encoded=True)


def _headers(request: httpx.Request) -> tuple[list[tuple[str, str]], list[str] | None]:
    """The headers for aiohttp, and those that it must not add of its own."""
    raw = request.headers.raw
    names = {name.lower() for name, _ in raw}
    if b"transfer-encoding" in names:
        # A body in pieces is sent in one.
        raw = [pair for pair in raw if pair[0].lower() != b"transfer-encoding"]
    missing = _AUTO_HEADERS - names
    told = [(name.decode("ascii"), value.decode("utf-8")) for name, value in raw]
    return told, [name.decode("ascii") for name in missing] or None


async def _payload(request: httpx.Request, trip: Trip) -> _Bytes | None:
    body = request.read() if isinstance(request.stream, httpx.ByteStream) else await request.aread()
    if body:
        return _Bytes(body, trip)
    trip.sent()
    return None


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    asked = request.extensions.get("timeout")
    if not asked:
        return _NO_TIMEOUT
    return aiohttp.ClientTimeout(
        total=None, connect=asked.get("pool"), sock_connect=asked.get("connect"), sock_read=asked.get("read")
    )
