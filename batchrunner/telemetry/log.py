"""log.jsonl: what happened in a run, one JSON object a line; no prompt, no reply, no line per success."""

from __future__ import annotations

import json
import logging
import os
import queue
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Emit(Protocol):
    """Writes one event, `noun_verbed`, its values as fields. Returns at once and never fails a run."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


@contextmanager
def run_log(
    path: Path, *, redact: Callable[[str], str], tell: Callable[[str], None] = lambda _: None
) -> Iterator[Emit]:
    """Append to the log at `path` from a thread of its own; every line passes `redact`.

    What the disk refuses is lost, and `tell` hears of it once: no log is worth a run.
    """
    handler = _LogFile(path, tell)
    handler.setFormatter(_Lines(redact))
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = QueueListener(waiting, handler)
    sender = QueueHandler(waiting)
    listener.start()

    def emit(event: str, /, **fields: Any) -> None:
        record = logging.LogRecord("batchrunner", logging.INFO, "", 0, event, None, None)
        record.fields = fields
        sender.enqueue(record)

    try:
        yield emit
    finally:
        listener.stop()
        handler.close()


class _LogFile(logging.Handler):
    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._path, self._tell, self._told = path, tell, False
        self._file = -1
        with self._forgiving():
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        with self._forgiving():
            if self._file >= 0:
                os.write(self._file, line)

    def close(self) -> None:
        with self._forgiving():
            if self._file >= 0:
                os.close(self._file)
        self._file = -1
        super().close()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._told:
                self._told = True
                self._tell(f"{self._path}: {(error.strerror or str(error)).lower()}; the log has gaps, the run goes on")


class _Lines(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "event": record.getMessage(), **getattr(record, "fields", {})}
        return self._redact(json.dumps(line, ensure_ascii=False, default=str))
