"""An asynchronous batch-job runner for chat-completion APIs: rows in, Parquet out, resumable.

Jobs are run with the command line, or with `run`, `arun`, `stream` and `plan`; the other names are what a provider of
one's own is written with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow, BatchrunnerError, JobError, RequestError, RunError, StoreError
from batchrunner.providers.base import Provider
from batchrunner.records import Completion, Endpoint, Event, Outcome, Reply, Request, Usage

if TYPE_CHECKING:
    from batchrunner.api import Run, Settings, arun, plan, run, stream

__all__ = [
    "arun",
    "BadRow",
    "BatchrunnerError",
    "Completion",
    "Endpoint",
    "Event",
    "JobError",
    "Outcome",
    "plan",
    "Provider",
    "Reply",
    "Request",
    "RequestError",
    "Run",
    "run",
    "RunError",
    "Settings",
    "StoreError",
    "stream",
    "Usage",
]
__version__ = "0.1.0"
_OF_API = ("Run", "Settings", "arun", "plan", "run", "stream")


def __getattr__(name: str) -> Any:
    """What runs jobs loads half of the world, so it is loaded when it is asked for."""
    if name in _OF_API:
        from batchrunner import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
