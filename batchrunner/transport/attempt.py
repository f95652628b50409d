"""The clocks of one attempt, kept for all attempts by one task."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import anyio

from batchrunner.errors import RequestError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

SWEEP_S = 0.05
TAIL_S = 0.1
"""How long a reply that is understood may take to end its frame, so that its connection can be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """How long an attempt may take: to connect, to the first byte of content, between two, in all.

    Less once an error status has come: its body is waited for `error_body_s` at most.
    """

    connect_s: float = 10.0
    first_byte_s: float = 300.0
    idle_s: float = 60.0
    attempt_s: float = 600.0
    error_body_s: float = 5.0


class Attempt:
    """One trip over the wire: how far it is, and when its next clock runs out.

    A clock that runs out ends the wait for `over`, or cancels what runs inside `cancelling`.
    """

    __slots__ = ("_clocks", "_deadline", "_end", "_now", "_scope", "due", "error_status", "expired", "finished",
                 "first_content", "over", "phase", "reused", "started", "was_sent")  # fmt: skip

    def __init__(self, now: Callable[[], float], clocks: Clocks, *, deadline: float | None) -> None:
        self._clocks, self._now = clocks, now
        self._deadline = math.inf if deadline is None else deadline
        self.started = self._now()
        self._end = min(self.started + clocks.attempt_s, self._deadline)
        self.phase: Literal["connect_s", "first_byte_s", "idle_s", "tail"] = "connect_s"
        self.due = min(self.started + clocks.connect_s, self._end)
        self.first_content: float | None = None
        self.finished: float | None = None
        self.reused = self.was_sent = self.error_status = self.expired = False
        self.over: asyncio.Future[None] | None = None
        self._scope: anyio.CancelScope | None = None

    def dialling(self) -> None:
        """Its turn to connect has come: what it waited for that is no latency of the server's."""
        self.started = self._now()
        self.due = min(self.started + self._clocks.connect_s, self._end)

    def connected(self, *, reused: bool) -> None:
        self.reused = reused
        self._enter("first_byte_s", self._clocks.first_byte_s)

    def sent(self) -> None:
        self.was_sent = True

    def answered(self) -> None:
        """A reply has begun, whether or not the transport told of the connection."""
        self.was_sent = True
        if self.phase == "connect_s":
            self.connected(reused=self.reused)

    def refused(self) -> None:
        """An error status has come: what follows can only explain it."""
        self.error_status = True
        self._end = min(self._end, self._now() + self._clocks.error_body_s)
        self.due = min(self.due, self._end)

    def content(self) -> None:
        """A byte of content came in."""
        self._enter("idle_s", self._clocks.idle_s)
        if self.first_content is None:
            self.first_content = self._now()

    def finish(self) -> None:
        """The reply is understood; at most the end of its frame is still to come."""
        if self.finished is None:
            self.finished = self._now()
            self._enter("tail", TAIL_S)

    def expire(self) -> None:
        """A clock has run out."""
        self.due = math.inf
        self.expired = True
        if self._scope is not None:
            self._scope.cancel()
        else:
            self.wake()

    def wake(self) -> None:
        """Nothing more is waited for."""
        if self.over is not None and not self.over.done():
            self.over.set_result(None)

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """What runs inside is cancelled when a clock runs out."""
        with anyio.CancelScope() as self._scope:
            yield
        self._scope = None

    def seconds_to(self, instant: float | None) -> float | None:
        return None if instant is None else instant - self.started

    def timeout(self, where: str) -> RequestError:
        """What to tell when a clock has run out."""
        return RequestError(self._told(where), verdict="retry", error_type="timeout", went_out=self.was_sent)

    def _enter(self, phase: Literal["first_byte_s", "idle_s", "tail"], allowed_s: float) -> None:
        self.phase = phase
        self.due = min(self._now() + allowed_s, self._end)

    def _told(self, where: str) -> str:
        now = self._now()
        if now >= self._deadline:
            return f"no answer from {where}: the deadline of the item or the run came after {now - self.started:.1f} s"
        if now >= self._end and self.error_status:
            return f"the error reply of {where} did not end within {self._clocks.error_body_s:g} s"
        if now >= self._end:
            return f"the reply of {where} did not end within {self._clocks.attempt_s:g} s (timeouts.attempt_s)"
        if self.phase == "connect_s":
            return f"no connection to {where} within {self._clocks.connect_s:g} s (timeouts.connect_s)"
        if self.phase == "first_byte_s":
            return f"no content from {where} within {self._clocks.first_byte_s:g} s (timeouts.first_byte_s)"
        return f"no more content from {where} for {self._clocks.idle_s:g} s (timeouts.idle_s)"


class Watch:
    """Looks after the clocks of all attempts that are under way."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.attempts: set[Attempt] = set()

    async def keep(self) -> None:
        """Cancel what is overdue, for ever. One timer serves all attempts; it may be late by `SWEEP_S`."""
        while True:
            await anyio.sleep(SWEEP_S)
            now = self.now()
            for attempt in [attempt for attempt in self.attempts if attempt.due <= now]:
                attempt.expire()
