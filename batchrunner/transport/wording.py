"""Trouble of a connection in httpx's classes and in few words."""

from __future__ import annotations

import os
import socket
import ssl

import httpx


class NotHTTP(httpx.RemoteProtocolError):
    """Something came back, and is no reply: that connection had not been closed."""


def told(error: BaseException) -> str:
    """What went wrong. Names no URL: that of a proxy may hold a password."""
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or "" if isinstance(error, socket.gaierror) else os.strerror(error.errno).lower()
    return str(error)
