"""An asynchronous batch-job runner for chat-completion APIs: rows in, Parquet out, resumable.

The names here are what a provider of one's own is written with; jobs are run with the command line.
"""

from batchrunner.errors import BadRow, BatchrunnerError, JobError, RequestError
from batchrunner.providers.base import Provider
from batchrunner.records import Completion, Endpoint, Event, Reply, Request, Usage

__all__ = [
    "BadRow",
    "BatchrunnerError",
    "Completion",
    "Endpoint",
    "Event",
    "JobError",
    "Provider",
    "Reply",
    "Request",
    "RequestError",
    "Usage",
]
__version__ = "0.1.0"
