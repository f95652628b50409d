"""The access log: one JSON line per request, without secrets, written by a thread of its own."""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from batchrunner.errors import JobError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime
    from pathlib import Path

FLUSH_S = 0.25
SECRET = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie", "set-cookie"})


class AccessLog:
    """Lines wait in memory for at most `FLUSH_S` and are appended whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._closing = threading.Event()
        self._error: OSError | None = None
        # A daemon, so that a process that dies without closing the log does not hang on it.
        self._thread = threading.Thread(target=self._write_until_closed, name="simulator-log", daemon=True)

    def open(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JobError(f"{self._place()}: {_reason(error)}; give a file to append to") from error
        self._thread.start()

    def add(
        self, *, time: datetime, path: str, headers: Mapping[str, str], body: Any, status: int, fault: str | None
    ) -> None:
        line = {
            "time": time,
            "path": _encodable(path),
            "headers": {_encodable(name): _encodable(headers[name]) for name in headers if name not in SECRET},
            "body": body,
            "status": status,
            "fault": fault,
        }
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def close(self) -> None:
        """Write what is left. Raises StoreError when any line could not be written."""
        self._closing.set()
        self._thread.join()
        os.close(self._fd)
        if self._error:
            raise StoreError(f"{self._place()}: {_reason(self._error)}") from self._error

    def _place(self) -> str:
        return f"simulator: log {str(self._path)!r}"

    def _write_until_closed(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        # Only the front is taken: the event loop may append meanwhile.
        waiting = len(self._lines)
        block = memoryview(b"".join(self._lines[:waiting]))
        del self._lines[:waiting]
        try:
            while block and not self._error:
                block = block[os.write(self._fd, block) :]
        except OSError as error:
            self._error = error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _encodable(text: str) -> str:
    """`text` without the lone surrogates that stand for bytes which are no UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()


@asynccontextmanager
async def logging_to(path: Path | None) -> AsyncIterator[AccessLog | None]:
    """An open log for as long as the block lasts; None without a path."""
    if path is None:
        yield None
        return
    log = AccessLog(path)
    await anyio.to_thread.run_sync(log.open)
    try:
        yield log
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(log.close)
