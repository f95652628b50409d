"""aiohttp's connections, made to tell how far a request has come."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import asyncio
    import ssl

    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection as Held
    from aiohttp.streams import StreamReader
    from aiohttp.tracing import Trace

    from batchrunner.transport.connection import Progress


class Trip:
    """What the connector and the payload learn about one request."""

    __slots__ = ("fresh", "progress", "protocol", "transport", "was_sent")

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.fresh = False
        self.was_sent = False
        self.protocol: ResponseHandler | None = None
        self.transport: asyncio.Transport | None = None

    def connected(self, protocol: ResponseHandler | None) -> None:
        self.protocol = protocol
        self.transport = protocol.transport if protocol is not None else None
        if self.progress is not None:
            self.progress.connected(reused=not self.fresh)

    def sent(self) -> None:
        self.was_sent = True
        if self.progress is not None:
            self.progress.sent()

    def drop(self) -> None:
        """End a connection that is closing at once, rather than when its peer has read all that was sent to it."""
        if self.transport is not None and self.transport.is_closing():
            self.transport.abort()

    def broken(self) -> BaseException | None:
        """The error that took the connection down; None for one that was closed in order."""
        error = self.protocol.exception() if self.protocol is not None else None
        return error if isinstance(error, OSError) else None


TRIP: ContextVar[Trip] = ContextVar("trip")


class Handler(ResponseHandler):
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


class Connector(aiohttp.TCPConnector):
    """Says which connection a request got. (aiohttp's tracing says it too, for 13 us a request.)"""

    def __init__(self, *, ssl: ssl.SSLContext | bool) -> None:
        super().__init__(limit=0, ssl=ssl)
        self._factory = partial(Handler.made, self._loop)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Held:
        trip = TRIP.get()
        connection = await super().connect(req, traces, timeout)
        while not trip.fresh and _said_more(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        trip.connected(connection.protocol)
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        TRIP.get().fresh = True
        return await super()._create_connection(req, traces, timeout)


def _said_more(connection: Held) -> bool:
    """Whether something came in that nobody had asked for; the next request would take it for its answer."""
    return connection.protocol is not None and connection.protocol.should_close
