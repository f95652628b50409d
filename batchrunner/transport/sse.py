"""Server-sent events out of bytes."""

from __future__ import annotations

from batchrunner.records import Event

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"


class SSEDecoder:
    """Server-sent events out of bytes, however they are split.

    Works on bytes because text line splitting also cuts at U+2028, U+2029 and U+0085, which are
    legal inside JSON strings. Time is linear in the bytes fed. Comments, `id`, `retry` and events
    without data are skipped; the non-standard field `error` gives an event of that name.
    """

    def __init__(self) -> None:
        self.done = False
        """`[DONE]` was read; later bytes are ignored."""
        self._line: list[bytes] = []
        self._first = True
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []
        self._error: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events which `data` completes."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if self.done or not data:
            return []
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        rest = b"" if data.endswith((b"\r", b"\n")) else lines.pop()
        events = self._read(lines)
        if rest:
            self._line.append(rest)
        return events

    def close(self) -> list[Event]:
        """The last event when the bytes ended without its blank line."""
        if self.done:
            return []
        events = self._read([b""]) if self._line else []
        return events if self.done else events + self._dispatch()

    def _read(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            events += self._take(self._whole(line))
            if self.done:
                break
        return events

    def _whole(self, end: bytes) -> bytes:
        """The line that `end` completes, without what may stand in front of the first one."""
        line = end
        if self._line:
            line = b"".join((*self._line, end))
            self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM).lstrip(b" \t")
        return line

    def _take(self, line: bytes) -> list[Event]:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            # The marker ends the stream at once: its blank line may never come.
            if value.strip() == _DONE:
                self.done = True
                return self._dispatch()
            self._data.append(value)
        elif field == b"error":
            self._error.append(value)
        elif field == b"event":
            self._name = value
        return []

    def _dispatch(self) -> list[Event]:
        if not self._data and not self._error:
            self._name = b""
            return []
        name = self._name.decode("utf-8", "replace") or "message"
        found = [Event(name="error", data=text) for text in _joined(self._error)]
        found += [Event(name=name, data=text) for text in _joined(self._data)]
        self._name = b""
        self._error.clear()
        self._data.clear()
        return found


def _joined(lines: list[bytes]) -> list[str]:
    """The lines as one text, or nothing where they are blank: a heartbeat."""
    text = b"\n".join(lines).decode("utf-8", "replace")
    return [text] if text and not text.isspace() else []
