"""log.jsonl: what happened in a run, one JSON object a line; no prompt, no reply, no line per success."""

from __future__ import annotations

import json
import logging
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
def run_log(path: Path, *, redact: Callable[[str], str]) -> Iterator[Emit]:
    """Append to the log at `path` from a thread of its own; every line passes `redact`."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    path.chmod(0o600)
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


class _Lines(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "event": record.getMessage(), **getattr(record, "fields", {})}
        return self._redact(json.dumps(line, ensure_ascii=False, default=str))
