"""One connection: HTTP/1.1 spoken over it, one request after another."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Protocol, cast

import httpx
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from batchrunner.transport.wording import NotHTTP, told

if TYPE_CHECKING:
    from collections.abc import Callable

    Headers = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 1024

_ANSWER = b"HTTP/"
_SWITCHING = 101
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
_PLAIN_CLOSE = {False: "the connection was closed without an answer", True: "the connection was closed in the reply"}


class Progress(Protocol):
    """Told how far a request has come. For other clients: put one into `request.extensions["progress"]`."""

    def connected(self, *, reused: bool) -> None:
        """There is a connection; `reused` if it has carried an earlier request."""

    def sent(self) -> None:
        """The whole request was handed to the network."""


class Receiver(Protocol):
    """Takes one reply in, called as its bytes arrive. Whoever gives False wants no more: the connection ends."""

    def sent(self) -> None:
        """The whole request was handed to the network."""

    def begun(self, status: int, headers: Headers) -> bool:
        """The head is in."""

    def took(self, data: bytes) -> bool:
        """The next bytes of the body, without their framing."""

    def ended(self, error: Exception | None) -> None:
        """The reply is whole, or has broken off, or will not come. Not called after a False.

        The error is one of httpx's, unless the receiver itself has raised another.
        """


class Connection(asyncio.Protocol):
    """Carries one exchange at a time: a request is written at once, its reply parsed straight into a `Receiver`.

    A connection that cannot carry another one closes itself: its peer said so, said more than it was asked, or
    spoke no HTTP. `free` is told each time that it can, `lost` once when it is gone.
    """

    __slots__ = ("_barren", "_begun", "_fed", "_free", "_fruitful", "_headers", "_keep", "_lost", "_parser",
                 "_paused", "_refused", "_sent", "_strange", "_surplus", "_transport", "_whole", "kept", "receiver",
                 "usable")  # fmt: skip

    def __init__(
        self,
        free: Callable[[Connection], None],
        lost: Callable[[Connection], None],
        strange: Callable[[], None] = lambda: None,
    ) -> None:
        self._free, self._lost, self._strange = free, lost, strange
        self._parser: HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._headers: Headers = []
        self._begun = self._whole = self._keep = self._refused = self._surplus = False
        self._paused = self._sent = self._fruitful = False
        self._fed = self._barren = 0
        self.kept = False
        """Whether it has been idle, and its peer may be about to close it."""
        self.receiver: Receiver | None = None
        """Whose reply is awaited."""
        self.usable = False

    @property
    def unread(self) -> bool:
        """Whether something has come in, its end included, that the loop has not read yet."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return True
        look = select.poll()
        look.register(sock.fileno(), select.POLLIN)
        return bool(look.poll(0))

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Write `request`, and let `receiver` have its reply. Only while it is usable and nobody's reply awaited."""
        assert self._transport is not None
        self._begun = self._whole = self._keep = self._refused = self._surplus = self._sent = self._fruitful = False
        self._barren = 0
        self._headers = []
        self.receiver = receiver
        self._transport.write(request)
        # What is still waiting to be written has not gone out; what broke at once has not either.
        if not self._paused and not self._transport.is_closing():
            self._sent = True
            receiver.sent()

    def abort(self) -> None:
        """Close at once; whose reply was awaited hears nothing more."""
        self.usable = False
        self.receiver = None
        if self._transport is not None:
            self._transport.abort()

    def shut(self) -> None:
        """Close at once; whose reply was awaited is told."""
        receiver = self.receiver
        self.abort()
        if receiver is not None:
            receiver.ended(httpx.ReadError("the transport was closed"))

    def hold(self, *, held: bool) -> None:
        """Stop or go on reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading() if held else self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Uvloop's transports do all that asyncio's do, and are none of them.
        self._transport = written = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        # As lenient as aiohttp's client is: these come from real servers and change no message's bounds.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        # Paused until the last byte has left us, over TLS for the layer that encrypts it: what is written then is out.
        written.set_write_buffer_limits(high=0)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None or self._parser is None:
            self.abort()  # Nobody had asked; the next request would take it for its answer.
            if data.startswith(_ANSWER) and b" 408 " not in data[:16]:
                self._strange()
            return
        self._fed = len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._misspoken(error)
            return
        if self._refused:
            self.abort()
        elif self._whole:
            self._done(receiver)
        elif self._fruitful:
            self._fruitful, self._barren = False, 0
        else:
            self._barren += self._fed
            if self._barren > MAX_HEAD_BYTES:
                self._misspoken(HttpParserError(f"more than {MAX_HEAD_BYTES} bytes of headers"))

    def eof_received(self) -> None:
        if self.receiver is not None:
            self._broken(self.receiver, None)
        self.usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self.receiver is not None:
            self._broken(self.receiver, exc)
        self._parser = self._transport = None
        self._lost(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.receiver is not None and not self._sent:
            self._sent = True
            self.receiver.sent()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._surplus = self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        if 0 in value:
            raise HttpParserError(f"header {name!r} holds a NUL")
        if not self._begun:
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 and status != _SWITCHING:  # An interim reply.
            self._headers = []
        elif not self._whole and self.receiver is not None:
            if self._barren + self._fed > MAX_HEAD_BYTES < sum(len(name) + len(value) for name, value in self._headers):
                raise HttpParserError(f"the reply's headers are larger than {MAX_HEAD_BYTES} bytes")
            self._begun = self._fruitful = True
            self._keep = self._parser.should_keep_alive()
            self._refused = not self.receiver.begun(status, self._headers)

    def on_body(self, data: bytes) -> None:
        self._fruitful = True
        if not self._refused and not self._whole and self.receiver is not None:
            self._refused = not self.receiver.took(data)

    def on_message_complete(self) -> None:
        self._whole = self._begun

    # How an exchange ends.

    def _done(self, receiver: Receiver) -> None:
        if self._keep and self.usable and not self._surplus and not self._paused:
            self.receiver = None
            self._free(self)
        else:
            self.abort()
            if self._surplus:
                self._strange()
        receiver.ended(None)

    def _misspoken(self, error: HttpParserError | HttpParserUpgrade) -> None:
        receiver, refused, whole = self.receiver, self._refused, self._whole
        self.abort()
        if receiver is None or refused:
            return
        cause = error.__context__ if isinstance(error, HttpParserCallbackError) else error
        if isinstance(cause, HttpParserError | HttpParserUpgrade):
            receiver.ended(None if whole else _chained(NotHTTP(str(cause)), cause))
        elif isinstance(cause, Exception):
            receiver.ended(cause)

    def _broken(self, receiver: Receiver, cause: Exception | None) -> None:
        self.abort()
        if cause is not None:
            kind = httpx.ReadError if self._sent or self._begun else httpx.WriteError
            receiver.ended(_chained(kind(told(cause)), cause))
        elif self._begun and not any(name.lower() in _FRAMES for name, _ in self._headers):
            receiver.ended(None)  # The end of the connection is the end of the body.
        else:
            receiver.ended(httpx.RemoteProtocolError(_PLAIN_CLOSE[self._begun]))


def _chained(error: httpx.TransportError, cause: BaseException) -> httpx.TransportError:
    error.__cause__ = cause
    return error
