"""aiohttp's exceptions as httpx's."""

from __future__ import annotations

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError

from batchrunner.transport.wording import NotHTTP, told

_TRANSLATIONS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, NotHTTP),
    (HttpProcessingError, NotHTTP),
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
    return told(getattr(error, "os_error", error))
