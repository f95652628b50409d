"""Waiting for somebody to make room on a full disk."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.errors import BatchrunnerError

POLL_S = 0.25


class Patience:
    """How long a full disk is waited for: `wait_s` from the first trouble on, until there is room again.

    One thread asks whether it `lasts`. `rest` blocks whoever calls it; `hurry` ends all waiting.
    """

    def __init__(self, wait_s: float, clock: Callable[[], float]) -> None:
        self._wait_s, self._clock = wait_s, clock
        self._until: float | None = None
        self._hurried = Event()

    @property
    def tried(self) -> bool:
        """Whether the disk is full as far as is known."""
        return self._until is not None

    def lasts(self, error: BatchrunnerError) -> bool:
        """Whether to wait, on, because of this error."""
        if self._until is None:
            self._until = self._clock() + self._wait_s
        return bool(getattr(error, "full", False)) and self._clock() < self._until and not self._hurried.is_set()

    def rest(self) -> None:
        """A moment before the next try."""
        self._hurried.wait(POLL_S)

    def restore(self) -> None:
        """There is room: the next trouble is waited for as long as the first."""
        self._until = None

    def hurry(self) -> None:
        self._hurried.set()
