"""New connections: names looked up, addresses tried, TLS spoken."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import httpx
from aiohappyeyeballs import start_connection

from batchrunner.transport.wording import told

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohappyeyeballs import AddrInfoType as Address

    from batchrunner.transport.connection import Connection

NAMES_S = 10.0
"""How long an address that was looked up is good."""

_SECOND_TRY_S = 0.25


class Origin(NamedTuple):
    """Whom a connection leads to."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        tls = url.scheme == "https"
        return cls(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls)


class Dialler:
    """Opens connections. TLS is always verified, by what `tls` gives."""

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        self._tls = tls
        self._names = Names()

    async def dial(self, origin: Origin, made: Callable[[], Connection]) -> Connection:
        """A connection to `origin`. Raises httpx.ConnectError."""
        try:
            addresses = await self._names.look_up(origin.host, origin.port)
            if len(addresses) > 1:
                return await self._raced(origin, addresses, made)
            # The loop's own way is half the price, and knows no races.
            host, port = addresses[0][4][:2]
            return await self._spoken(origin, made, host=host, port=port)
        # uvloop has RuntimeErrors for some addresses, and a name may be none that can be asked for.
        except (OSError, RuntimeError, UnicodeError) as error:
            raise httpx.ConnectError(told(error)) from error

    def close(self) -> None:
        """Ask for no more addresses."""
        self._names.close()

    async def _raced(self, origin: Origin, addresses: list[Address], made: Callable[[], Connection]) -> Connection:
        """Over the address that answers first: a second one is tried when the first takes its time."""
        sock = await start_connection(addresses, happy_eyeballs_delay=_SECOND_TRY_S, interleave=1)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return await self._spoken(origin, made, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _spoken(self, origin: Origin, made: Callable[[], Connection], **leading: Any) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            made,
            ssl=self._tls() if origin.tls else None,
            server_hostname=origin.host if origin.tls else None,
            **leading,
        )
        return connection


class Names:
    """Addresses of hosts, asked for once however many want them, and kept for `NAMES_S`."""

    def __init__(self) -> None:
        self._asking: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def look_up(self, host: str, port: int) -> list[Address]:
        """Where `host` is; each time another address of the same kind comes first. Raises OSError, UnicodeError."""
        if (address := _number(host, port)) is not None:
            return [address]
        task = self._asking.get((host, port))
        if task is None:
            task = self._asking[host, port] = asyncio.ensure_future(self._ask(host, port))
            task.add_done_callback(lambda asked: self._answered((host, port), asked))
        # Shielded: others may wait for it as well.
        found = await asyncio.shield(task)
        found.append(found.pop(0))
        return list(found)

    def close(self) -> None:
        """Give up what is being asked for."""
        for task in self._asking.values():
            task.cancel()

    async def _ask(self, host: str, port: int) -> list[Address]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        # The one form that `Address` lacks is for Pythons built without IPv6.
        return cast("list[Address]", found)

    def _answered(self, name: tuple[str, int], task: asyncio.Task[list[Address]]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._asking[name]
        else:
            task.get_loop().call_later(NAMES_S, self._asking.pop, name, None)


def _number(host: str, port: int) -> Address | None:
    """The address of a host that is given by number."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    return None
