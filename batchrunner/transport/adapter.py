"""aiohttp under httpx's transport interface: httpx's requests, replies and exceptions, aiohttp's speed."""

from __future__ import annotations

import os
import socket
import ssl
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.payload import Payload
from yarl import URL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader
    from aiohttp.tracing import Trace

MAX_HEAD_BYTES = 64 * 1024

_READ_BYTES = 256 * 1024
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_AUTO_HEADERS = frozenset({b"accept", b"accept-encoding", b"user-agent", b"content-type"})


class Progress(Protocol):
    """Told how far a request has come. Put one into `request.extensions["progress"]`."""

    def connected(self, *, reused: bool) -> None:
        """There is a connection; `reused` if it has carried an earlier request."""

    def sent(self) -> None:
        """The whole request was handed to the network."""


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
        trip = _Trip(request.extensions.get("progress"))
        _TRIP.set(trip)
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
            connector=_Connector(ssl=self._ssl if self._ssl is not None else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )
        return self._session


class _Trip:
    """What the connector and the payload learn about one request."""

    __slots__ = ("fresh", "progress", "protocol", "was_sent")

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.fresh = False
        self.was_sent = False
        self.protocol: ResponseHandler | None = None

    def connected(self, protocol: ResponseHandler | None) -> None:
        self.protocol = protocol
        if self.progress is not None:
            self.progress.connected(reused=not self.fresh)

    def sent(self) -> None:
        self.was_sent = True
        if self.progress is not None:
            self.progress.sent()

    def broken(self) -> BaseException | None:
        """The error that took the connection down; None for one that was closed in order."""
        error = self.protocol.exception() if self.protocol is not None else None
        return error if isinstance(error, OSError) else None


_TRIP: ContextVar[_Trip] = ContextVar("trip")


class _Connection(ResponseHandler):
    """Tells the reader of a body when its framing turns to garbage; aiohttp's own leaves it waiting."""

    reading: StreamReader | None = None

    @classmethod
    def made(cls, loop: asyncio.AbstractEventLoop) -> ResponseHandler:
        return cls(loop)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        reading = self.reading
        if reading is not None and not reading.is_eof() and reading.exception() is None:
            reading.set_exception(exc, *cause)


class _Connector(aiohttp.TCPConnector):
    """Says which connection a request got. (aiohttp's tracing says it too, for 13 us a request.)"""

    def __init__(self, *, ssl: ssl.SSLContext | bool) -> None:
        super().__init__(limit=0, ssl=ssl)
        self._factory = partial(_Connection.made, self._loop)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        trip = _TRIP.get()
        connection = await super().connect(req, traces, timeout)
        trip.connected(connection.protocol)
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        _TRIP.get().fresh = True
        return await super()._create_connection(req, traces, timeout)


class _Bytes(Payload):
    """A request's body, written at once: a status that comes before the upload's end is then always read."""

    _autoclose = True

    def __init__(self, value: bytes, trip: _Trip) -> None:
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

    def __init__(self, response: aiohttp.ClientResponse, trip: _Trip) -> None:
        self._response = response
        self._trip = trip
        if isinstance(trip.protocol, _Connection):
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
        if (cause := self._trip.broken()) is not None:
            raise translated(cause, was_sent=True) from cause
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._response.close()


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


async def _payload(request: httpx.Request, trip: _Trip) -> _Bytes | None:
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


_TRANSLATIONS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (HttpProcessingError, httpx.RemoteProtocolError),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (ValueError, httpx.LocalProtocolError),
)


def translated(error: BaseException, *, was_sent: bool) -> httpx.TransportError:
    """The same trouble as httpx's clients know it. The text names no URL: that of a proxy may hold a password."""
    for known, meant in _TRANSLATIONS:
        if isinstance(error, known):
            return meant(_text(error))
    return (httpx.ReadError if was_sent else httpx.WriteError)(_text(error))


def _text(error: BaseException) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}".split("\n", 1)[0]
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None):
        return f"TLS: {cause.reason.lower().replace('_', ' ')}"
    if isinstance(cause, OSError) and cause.errno is not None:
        return cause.strerror or "" if isinstance(cause, socket.gaierror) else os.strerror(cause.errno).lower()
    return str(cause)
