"""A reply's body: inflated step by step under a cap, and told apart by its first bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from batchrunner.transport.inflate import INFLATABLE, Inflater, Unreadable, too_large
from batchrunner.transport.sse import SSEDecoder

if TYPE_CHECKING:
    from batchrunner.records import Event

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_FIELD_BYTES = max(map(len, _FIELDS))
_CONTENT = re.compile(rb"(?:\A|[\r\n])(?:data|error):[ \t]*[^\s]")
_LINE_START_BYTES = 16
_STEP_BYTES = 64 * 1024
_EVENT_BYTES = 256
"""What an event takes at least, however little it says: a cap on what was sent alone would be one on a tenth of it."""


class Body:
    """Takes the bytes of one body as they come; holds either whole bytes or events, never both."""

    def __init__(self, *, encoding: str, content_type: str, max_bytes: int) -> None:
        self._encoding = encoding.strip().lower()
        self._inflater = Inflater(self._encoding, max_bytes) if self._encoding in INFLATABLE else None
        self._labelled = content_type.lower().startswith("text/event-stream")
        self._max_bytes = max_bytes
        self._size = 0
        self._start = b""
        self._kind: Literal["plain", "stream"] | None = None
        self._parts: list[bytes] = []
        self._events: list[Event] = []
        self._decoder: SSEDecoder | None = None
        self._line = b""
        self.done = False
        """`[DONE]` was read: nothing that follows matters."""

    @property
    def content(self) -> bytes:
        return b"".join(self._parts)

    @property
    def events(self) -> tuple[Event, ...] | None:
        return tuple(self._events) if self._kind == "stream" else None

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. Whether there was content among them. Raises Unreadable."""
        if self._inflater is not None:
            data = self._inflater.feed(data)
        content = False
        for start in range(0, len(data), _STEP_BYTES):
            step = data[start : start + _STEP_BYTES]
            self._count(len(step))
            content |= self._sorted(step, ended=False)
        return content

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)

    def end(self, *, cut: str | None) -> str | None:
        """No more bytes will come. How the body broke off (`cut` if that is known). Raises Unreadable."""
        if self.done:
            return None
        if self._kind is None:
            self._sorted(b"", ended=True)
        # Half a line at the end of a cut stream is half an event: what came before it may be complete.
        if self._decoder is not None and (cut is None or not self._line):
            self._events += self._decoder.close()
            self.done = self._decoder.done
        if cut is not None:
            return cut
        if self._inflater is not None and not self._inflater.ended:
            return f"the {self._encoding} data broke off"
        if self._inflater is None and self._encoding not in {"", "identity"} and not _is_text(self.content):
            message = f"the reply is encoded as {self._encoding!r}, which was not asked for"
            raise Unreadable(message, verdict="reject", error_type="malformed")
        return None

    def _sorted(self, data: bytes, *, ended: bool) -> bool:
        if self._kind is None:
            self._start += data
            self._kind = kind_of(self._start, labelled=self._labelled, ended=ended)
            if self._kind is None:
                return False
            data, self._start = self._start, b""
            if self._kind == "stream":
                self._decoder = SSEDecoder()
                data = data.removeprefix(_BOM).lstrip(_BLANK)
        if self._decoder is not None:
            return self._read_events(self._decoder, data)
        self._parts.append(data)
        return not data.isspace()

    def _read_events(self, decoder: SSEDecoder, data: bytes) -> bool:
        events = decoder.feed(data)
        self._events += events
        self._count(sum(max(0, _EVENT_BYTES - len(event.data)) for event in events))
        self.done = decoder.done
        text = self._line + data
        self._line = text[max(text.rfind(b"\n"), text.rfind(b"\r")) + 1 :][:_LINE_START_BYTES]
        return any(event.data.strip() for event in events) or _CONTENT.search(text) is not None


def kind_of(start: bytes, *, labelled: bool, ended: bool) -> Literal["plain", "stream"] | None:
    """Whether a body that begins like this holds server-sent events; None: more bytes must tell.

    What a server says about it (`labelled`) counts only where the bytes do not contradict it.
    """
    if not ended and len(start) < len(_BOM) and _BOM.startswith(start):
        return None
    text = start.removeprefix(_BOM).lstrip(_BLANK)
    if not text and not ended:
        return None
    if labelled:
        return "plain" if text.startswith((b"{", b"[", b"<")) else "stream"
    if text.startswith(_FIELDS):
        return "stream"
    may_become = not ended and len(text) < _FIELD_BYTES and any(field.startswith(text) for field in _FIELDS)
    return None if may_become else "plain"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
