"""The connections to one origin: kept while idle, dialled a bounded number at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from batchrunner.transport.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.transport.dial import Dialler, Origin

IDLE_S = 15.0
"""How long a connection is kept for a next request: less than most servers keep theirs."""
UNREAD_S = 1.0
"""How long a connection is left open that something has come in on unasked, for that to be read."""
DIALS = 200
"""How many connections may be in the making at once: more would overrun the queue of a server that listens."""


class Pool:
    """Connections to one origin.

    Each is used again and again, until the origin has once answered what nobody had asked: from then on, what comes
    in on a connection that has been used may be anybody's, and each is used once.
    """

    def __init__(self, origin: Origin, dialler: Dialler, *, idle_s: float = IDLE_S, dials: int = DIALS) -> None:
        self._origin = origin
        self._dialler = dialler
        self._idle_s = idle_s
        self._trusted = True
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: dict[Connection, float] = {}
        self._slots = asyncio.Semaphore(dials)
        self._empty = asyncio.Event()
        self._sweeping: asyncio.TimerHandle | None = None

    def idle(self) -> Connection | None:
        """A connection that can be used at once: the one that has been idle longest.

        What came in on it unasked has had the most time to arrive, and is looked for: an answer that nobody
        asked for must not become that of the next request.
        """
        while self._idle:
            connection = next(iter(self._idle))
            since = self._idle.pop(connection)
            if connection.usable and connection.unread:
                # The loop is to see what it is; what turns out to be nothing is given up all the same.
                self._loop.call_later(UNREAD_S, connection.abort)
                continue
            if connection.usable and self._loop.time() - since < self._idle_s:
                return connection
            connection.abort()
        return None

    async def connected(self, dialling: Callable[[], None]) -> Connection:
        """A connection, new unless one has become idle meanwhile. `dialling` is told when its turn has come.

        Raises httpx.ConnectError.
        """
        async with self._slots:
            if (connection := self.idle()) is not None:
                return connection
            dialling()
            connection = await self._dialler.dial(self._origin, self._made)
            if not connection.usable:
                raise httpx.ConnectError("the connection was closed at once")
            self._open.add(connection)
            return connection

    def keep(self, connection: Connection) -> None:
        """Have `connection` back, for the next who wants one."""
        if not self._trusted:
            connection.abort()
            return
        connection.kept = True
        self._idle[connection] = self._loop.time()
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._idle_s, self._sweep)

    async def aclose(self) -> None:
        """Close all connections, those in use as well."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._idle.clear()
        for connection in [*self._open]:
            connection.shut()
        if self._open:
            self._empty.clear()
            await self._empty.wait()

    def _made(self) -> Connection:
        return Connection(self.keep, self._lost, self._distrust)

    def _distrust(self) -> None:
        """The origin has answered what nobody had asked."""
        self._trusted = False
        while self._idle:
            self._idle.popitem()[0].abort()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)
        if not self._open:
            self._empty.set()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in [connection for connection, since in self._idle.items() if now - since >= self._idle_s]:
            del self._idle[connection]
            connection.abort()
        oldest = next(iter(self._idle.values()), None)
        self._sweeping = None if oldest is None else self._loop.call_at(oldest + self._idle_s, self._sweep)
