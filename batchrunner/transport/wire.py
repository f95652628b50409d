"""What the rest of the product sends with: one request out, one reply or one RequestError back."""

from __future__ import annotations

import asyncio
import ssl
import time
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import httpx

from batchrunner.errors import JobError
from batchrunner.transport import line
from batchrunner.transport.attempt import Attempt, Clocks, Watch
from batchrunner.transport.direct import DirectTransport
from batchrunner.transport.failures import TRANSLATED
from batchrunner.transport.files import raise_open_files
from batchrunner.transport.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batchrunner.records import Reply, Request
    from batchrunner.transport.line import Line

MAX_REPLY_BYTES = 32 * 1024 * 1024

_CLOSE_S = 5.0


class Wire:
    """One per run, as an async context manager. `send` may be called from any number of tasks.

    Never follows a redirect, never raises for a status, never keeps a cookie.
    """

    def __init__(
        self,
        *,
        clocks: Clocks,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        ca_file: Path | None = None,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clocks = clocks
        self._max_reply_bytes = max_reply_bytes
        self._proxy = proxy
        # Read when something needs it, for it takes 40 ms; but a file that cannot be read is told of at once.
        self._tls = lru_cache(maxsize=1)(lambda: tls_context(ca_file))
        if ca_file is not None:
            self._tls()
        self._direct = DirectTransport(tls=self._tls) if transport is None else None
        self._through = transport
        """Serves lines that have a proxy, or all where one is given."""
        self._watch = Watch(now)

    async def __aenter__(self) -> Wire:
        raise_open_files()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._watch.keep)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._group.cancel_scope.cancel()
        try:
            # Without the error that ends the block: the group would wrap it, and it is not the group's.
            await self._group.__aexit__(None, None, None)
        finally:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                for transport in (self._direct, self._through):
                    if transport is not None:
                        await transport.aclose()

    def prepare(self, base_url: str, headers: Mapping[str, str]) -> Line:
        """The way to `base_url` with these headers, to be made once and used for many requests. Raises JobError."""
        prepared = line.prepare(base_url, headers, proxy=self._proxy)
        if prepared.proxy is not None and self._through is None:
            self._through = _aiohttp(self._tls())
        elif prepared.origin.tls:
            self._tls()
        return prepared

    async def send(self, line: Line, request: Request, *, deadline: float | None = None) -> Reply:
        """Take `request` over the wire once. Raises RequestError, and nothing else but cancellation.

        `deadline` is an instant of the monotonic clock after which nobody waits for the reply.
        """
        attempt = Attempt(self._watch.now, self._clocks, deadline=deadline)
        if attempt.due <= attempt.started:
            raise attempt.timeout(line.where)
        incoming = Incoming(attempt, line.where, self._max_reply_bytes)
        self._watch.attempts.add(attempt)
        try:
            if line.proxy is None and self._direct is not None:
                await _exchange(self._direct, line, request, incoming)
            else:
                with attempt.cancelling():
                    await self._trip(line, request, incoming)
        except TRANSLATED as error:
            incoming.ended(error)
        finally:
            self._watch.attempts.discard(attempt)
        return incoming.reply()

    async def _trip(self, line: Line, request: Request, incoming: Incoming) -> None:
        assert self._through is not None
        response = await self._through.handle_async_request(line.outgoing(request, incoming.attempt))
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            await incoming.read(response, stream)
        finally:
            await stream.aclose()


async def _exchange(direct: DirectTransport, line: Line, request: Request, incoming: Incoming) -> None:
    """`request` out and its reply in, straight over a connection: the awaiting task is woken once."""
    outgoing, attempt, pool = line.bytes_of(request), incoming.attempt, direct.pool(line.origin)
    connection = pool.idle()
    if connection is None:
        with attempt.cancelling():
            connection = await pool.connected(attempt.dialling)
        if connection is None:
            return
        if attempt.expired:
            pool.keep(connection)
            return
    attempt.over = over = asyncio.get_running_loop().create_future()
    attempt.connected(reused=connection.kept)
    connection.send(outgoing, incoming)
    try:
        await over
    finally:
        if connection.receiver is incoming:
            connection.abort()


def _aiohttp(context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    """Imported by name, for those who need it: aiohttp takes a tenth of a second."""
    transport: httpx.AsyncBaseTransport = import_module("batchrunner.transport.adapter").AiohttpTransport(
        ssl_context=context
    )
    return transport


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Verifies by certifi's authorities, those of this machine, and those in `ca_file`. Raises JobError."""
    if ca_file is None:
        return _shared_authorities()
    context = _authorities()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise JobError(
            f"provider.ca_file: {str(ca_file)!r} holds no certificates that can be read ({error})"
        ) from error
    return context


def _authorities() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


_shared_authorities = lru_cache(maxsize=1)(_authorities)
"""Reading them takes 40 ms, and nobody changes this one."""
