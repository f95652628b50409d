"""gzip and deflate, decoded step by step, so that a small reply cannot become a large one unnoticed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrunner.errors import ErrorType, Verdict

INFLATABLE = frozenset({"gzip", "x-gzip", "deflate"})

_GZIP = b"\x1f\x8b"
_STEP_BYTES = 64 * 1024
_RATIO, _RATIO_FROM_BYTES = 200, 1024 * 1024


class Unreadable(Exception):
    """The bytes cannot become a reply."""

    def __init__(self, message: str, *, verdict: Verdict, error_type: ErrorType) -> None:
        super().__init__(message)
        self.verdict: Verdict = verdict
        self.error_type: ErrorType = error_type


def too_large(max_bytes: int) -> Unreadable:
    message = f"the reply is larger than {max_bytes} bytes"
    return Unreadable(message, verdict="reject", error_type="response_too_large")


class Inflater:
    """Decodes gzip (any number of members) or deflate (with zlib's header or without it)."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._engine: zlib._Decompress | None = None
        self._held = b""
        self._taken = self._given = self._members = 0
        self._trailing = False

    @property
    def ended(self) -> bool:
        """Whether the bytes so far end where the encoding ends."""
        return self._engine is None and (self._members > 0 or self._taken == 0)

    def feed(self, data: bytes) -> bytes:
        """The next bytes, decoded. Raises Unreadable for what is mislabelled, damaged or a bomb."""
        self._taken += len(data)
        data, self._held = self._held + data, b""
        parts: list[bytes] = []
        more = bool(data)
        while more:
            if self._engine is None and not self._begin(data):
                break
            part, data = self._step(data)
            parts.append(part)
            self._count(len(part), self._taken - len(data))
            # A full step may leave decoded bytes behind although all input is taken.
            more = bool(data) or (self._engine is not None and len(part) == _STEP_BYTES)
        return b"".join(parts)

    def _begin(self, data: bytes) -> bool:
        """Start a member, if `data` begins one; False: it does not, or not yet."""
        if self._trailing:
            return False
        if len(data) < len(_GZIP):
            self._held = data
            return False
        if self._encoding == "deflate":
            zlib_header = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
            self._engine = zlib.decompressobj(zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        elif data.startswith(_GZIP):
            self._engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif self._members == 0:
            raise self._false_label()
        else:
            # Padding behind the last member is common, and says nothing.
            self._trailing = True
        return self._engine is not None

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Decode a bounded piece of `data`; gives it and what is left of `data`."""
        engine = self._engine
        assert engine is not None
        try:
            part = engine.decompress(data, _STEP_BYTES)
        except zlib.error:
            raise self._false_label() from None
        if not engine.eof:
            return part, engine.unconsumed_tail
        self._engine = None
        self._members += 1
        self._trailing = self._encoding == "deflate"
        return part, engine.unused_data

    def _count(self, given: int, taken: int) -> None:
        self._given += given
        if self._given > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._given > _RATIO_FROM_BYTES and self._given > _RATIO * taken:
            message = f"the reply unpacks to more than {_RATIO} times its size"
            raise Unreadable(message, verdict="reject", error_type="response_too_large")

    def _false_label(self) -> Unreadable:
        message = f"the reply is called {self._encoding!r} and is not, or is damaged"
        return Unreadable(message, verdict="retry", error_type="malformed")
