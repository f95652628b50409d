"""What each of httpx's exceptions means for an attempt."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

import httpx

from batchrunner.errors import ErrorType, RequestError, Verdict
from batchrunner.transport.wording import NotHTTP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.transport.attempt import Attempt

_CONNECTION: tuple[Verdict, ErrorType] = ("retry", "connection")
_TIMEOUT: tuple[Verdict, ErrorType] = ("retry", "timeout")
_OUR_FAULT: tuple[Verdict, ErrorType] = ("reject", "bad_request")

MEANING: dict[type[Exception], tuple[Verdict, ErrorType]] = {
    httpx.HTTPError: _CONNECTION,
    httpx.RequestError: _CONNECTION,
    httpx.TransportError: _CONNECTION,
    httpx.TimeoutException: _TIMEOUT,
    httpx.ConnectTimeout: _TIMEOUT,
    httpx.ReadTimeout: _TIMEOUT,
    httpx.WriteTimeout: _TIMEOUT,
    httpx.PoolTimeout: _TIMEOUT,
    httpx.NetworkError: _CONNECTION,
    httpx.ReadError: _CONNECTION,
    httpx.WriteError: _CONNECTION,
    httpx.ConnectError: _CONNECTION,
    httpx.CloseError: _CONNECTION,
    httpx.ProxyError: _CONNECTION,
    httpx.ProtocolError: _CONNECTION,
    httpx.RemoteProtocolError: _CONNECTION,
    httpx.LocalProtocolError: _OUR_FAULT,
    httpx.UnsupportedProtocol: _OUR_FAULT,
    httpx.InvalidURL: _OUR_FAULT,
    httpx.DecodingError: ("retry", "malformed"),
    httpx.TooManyRedirects: ("abort", "redirect"),
    httpx.HTTPStatusError: ("retry", "provider_error"),
    httpx.CookieConflict: _CONNECTION,
    httpx.StreamError: _CONNECTION,
    httpx.StreamConsumed: _CONNECTION,
    httpx.StreamClosed: _CONNECTION,
    httpx.ResponseNotRead: _CONNECTION,
    httpx.RequestNotRead: _CONNECTION,
}
"""Every public exception of httpx: a new one must be decided on, and a test says so."""

TRANSLATED = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)

_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})


def failure(error: Exception, attempt: Attempt, *, where: str, status: int | None = None) -> RequestError:
    """What `error` means. `status` is that of the reply it broke off, None when none had begun."""
    verdict, error_type = MEANING[_known(error)]
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return RequestError(_untrusted(causes, where), verdict="abort", error_type="connection", scope="run")
    if any(isinstance(cause, OSError) and cause.errno in _NO_FILES for cause in causes):
        return RequestError(_no_files(where), verdict=verdict, error_type=error_type, scope="machine", wait_s=0.0)
    stale = status is None and attempt.reused and error_type == "connection" and not isinstance(error, NotHTTP)
    return RequestError(
        f"{_happened(error, causes, attempt, where=where, status=status, stale=stale)} ({_named(error)})",
        verdict=verdict,
        error_type=error_type,
        status=status,
        wait_s=0.0 if stale else None,
        went_out=attempt.was_sent,
    )


def _happened(
    error: Exception, causes: list[BaseException], attempt: Attempt, *, where: str, status: int | None, stale: bool
) -> str:
    if status is not None:
        return f"the connection to {where} was lost in the middle of the reply"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"cannot find the address of {where}"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return f"cannot connect to {where}"
    if stale:
        return f"{where} had closed the idle connection that was used again"
    return f"no answer from {where}" if attempt.was_sent else f"the request could not be sent to {where}"


def _named(error: Exception) -> str:
    """The class as well: some of these come without a word."""
    return f"{_known(error).__name__}: {error}" if str(error) else _known(error).__name__


def _known(error: Exception) -> type[Exception]:
    """The class of `error`, or the nearest above it, that is httpx's own."""
    return next(kind for kind in type(error).__mro__ if kind in MEANING)


def _untrusted(causes: list[BaseException], where: str) -> str:
    why = next((told for cause in causes if (told := getattr(cause, "verify_message", ""))), "no reason given")
    return f"the certificate of {where} is not trusted ({why}); name the CA that signed it in provider.ca_file"


def _no_files(where: str) -> str:
    return (
        f"cannot connect to {where}: this process has reached its limit of open files; "
        "raise it with 'ulimit -n', or lower limits.concurrency"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(nested := getattr(error, "os_error", None), BaseException):
            yield nested
        error = error.__cause__ or error.__context__
