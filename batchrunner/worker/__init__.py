"""One item's way to its outcome."""

from batchrunner.worker.trip import Answered, Asks, Later, Settings, Trip, Unfinished
from batchrunner.worker.worker import Worker

__all__ = ["Answered", "Asks", "Later", "Settings", "Trip", "Unfinished", "Worker"]
