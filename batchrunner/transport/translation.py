"""aiohttp's exceptions as httpx's."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError

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
