"""Ending a run early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope

if TYPE_CHECKING:
    from collections.abc import Callable


class Brakes:
    """Two ways to end a run early. `drain` takes no new item; `stop` also gives up those in flight.

    The first cause to drain is the one that the run reports. `hold` only takes nothing new until `release`. Make
    it inside the event loop.
    """

    def __init__(self) -> None:
        self.cause: BaseException | None = None
        self.draining = self.held = False
        self.stopping = CancelScope()
        self._on_drain: list[Callable[[], None]] = []
        self._on_release: list[Callable[[], None]] = []

    def drain(self, cause: BaseException | None = None) -> None:
        self.cause = self.cause or cause
        self.draining = True
        for tell in self._on_drain:
            tell()

    def stop(self, cause: BaseException | None = None) -> None:
        self.drain(cause)
        self.stopping.cancel()

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False
        for tell in self._on_release:
            tell()

    def on_release(self, tell: Callable[[], None]) -> None:
        self._on_release.append(tell)

    def on_drain(self, tell: Callable[[], None]) -> None:
        self._on_drain.append(tell)
