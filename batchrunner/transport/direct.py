"""httptools on asyncio's protocols under httpx's transport interface: for direct connections."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from batchrunner.transport.dial import Dialler, Origin
from batchrunner.transport.pool import IDLE_S, Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from batchrunner.transport.connection import Connection, Headers, Progress

_HOLD_BYTES = 256 * 1024
_UNSENT = frozenset({b"content-length", b"transfer-encoding"})


class DirectTransport(httpx.AsyncBaseTransport):
    """Sends over pools of kept connections, one pool for each origin. TLS is always verified.

    Serves any httpx client; whoever wants it for less takes a connection out of `pool` and sends bytes over it.
    Redirects, cookies, `.netrc`, proxy variables and content encodings are left alone. Timeouts are kept only
    if `request.extensions["timeout"]` asks for them. All requests must come from one event loop. `tls` is asked
    for its context when the first connection needs it.
    """

    def __init__(self, *, tls: Callable[[], ssl.SSLContext] | None = None, idle_s: float = IDLE_S) -> None:
        self._dialler = Dialler(tls or lru_cache(maxsize=1)(httpx.create_ssl_context))
        self._idle_s = idle_s
        self._pools: dict[Origin, Pool] = {}

    def pool(self, origin: Origin) -> Pool:
        """The connections to `origin`."""
        return self._pools.get(origin) or self._opened(origin)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in {"http", "https"} or not request.url.host:
            raise httpx.UnsupportedProtocol(f"expected an http:// or https:// address, got {request.url.scheme!r}")
        outgoing = await _bytes_of(request)
        timeouts = request.extensions.get("timeout") or {}
        connection = await self._connection(Origin.of(request.url), timeouts.get("connect"))
        arriving = _Arriving(connection, request)
        connection.send(outgoing, arriving)
        try:
            status, headers = await arriving.head()
        except BaseException:
            await arriving.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=arriving, extensions={"http_version": b"HTTP/1.1"})

    async def aclose(self) -> None:
        self._dialler.close()
        for pool in self._pools.values():
            await pool.aclose()

    def _opened(self, origin: Origin) -> Pool:
        pool = self._pools[origin] = Pool(origin, self._dialler, idle_s=self._idle_s)
        return pool

    async def _connection(self, origin: Origin, timeout_s: float | None) -> Connection:
        pool = self.pool(origin)
        if (connection := pool.idle()) is not None:
            return connection
        try:
            async with asyncio.timeout(timeout_s):
                return await pool.connected(lambda: None)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {timeout_s} s") from error


class _Arriving(httpx.AsyncByteStream):
    """A reply's bytes as they come in. Closing it early closes the connection."""

    def __init__(self, connection: Connection, request: httpx.Request) -> None:
        self._connection = connection
        self._bodiless = request.method == "HEAD"
        self._read_s: float | None = (request.extensions.get("timeout") or {}).get("read")
        self._progress: Progress | None = request.extensions.get("progress")
        self._head: tuple[int, Headers] | None = None
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._held = False
        self._over = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        if self._progress is not None:
            self._progress.connected(reused=connection.kept)

    def sent(self) -> None:
        if self._progress is not None:
            self._progress.sent()

    def begun(self, status: int, headers: Headers) -> bool:
        self._head = (status, headers)
        self._over = self._bodiless
        self._news.set()
        return not self._bodiless

    def took(self, data: bytes) -> bool:
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting > _HOLD_BYTES and not self._held:
            self._hold(held=True)
        self._news.set()
        return True

    def ended(self, error: Exception | None) -> None:
        self._over, self._error = True, error
        self._hold(held=False)
        self._news.set()

    async def head(self) -> tuple[int, Headers]:
        """Status and headers, once they are in. Raises httpx.TransportError."""
        while self._head is None:
            await self._more()
        return self._head

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._over and self._error is None:
                raise StopAsyncIteration
            await self._more()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        if not self._chunks:
            self._hold(held=False)
        return chunk

    async def aclose(self) -> None:
        if self._connection.receiver is self:
            self._connection.abort()

    def _hold(self, *, held: bool) -> None:
        """Bound what waits to be read here. Undone when the reply ends: its connection is another's then."""
        if held is not self._held:
            self._held = held
            self._connection.hold(held=held)

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._news.clear()
        try:
            async with asyncio.timeout(self._read_s):
                await self._news.wait()
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"nothing came for {self._read_s} s") from error


async def _bytes_of(request: httpx.Request) -> bytes:
    body = request.read() if isinstance(request.stream, httpx.ByteStream) else await request.aread()
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _UNSENT]
    if body or request.method in {"POST", "PUT", "PATCH"}:
        headers.append((b"content-length", b"%d" % len(body)))
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode("ascii"), request.url.raw_path, lines, body)
