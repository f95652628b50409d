"""A loopback server that answers with the bytes that a test wrote down, and remembers its connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawPeer:
    """An async context manager. `answers` go out one for each request, whichever connection it comes over."""

    def __init__(self, *answers: Answer, hasty: bool = False) -> None:
        self.answers = list(answers)
        self.hasty = hasty
        """Whether it answers a request whose body it has not read."""
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        """One for each connection, in order."""
        self.ended = 0
        """How many connections their client has closed."""
        self.port = 0
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> RawPeer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def until_ended(self, count: int) -> None:
        """Wait until that many connections were closed by their client."""
        async with asyncio.timeout(2), self._changed:
            await self._changed.wait_for(lambda: self.ended >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.requests.append(head if self.hasty else head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(reader, writer)
                while self.hasty and await reader.read(2**16):
                    pass
        self.ended += 1
        async with self._changed:
            self._changed.notify_all()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
