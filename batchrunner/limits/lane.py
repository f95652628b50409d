"""A lane: what shares one limit. Paces, pauses, counts what is in flight, and holds no task."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import anyio

from batchrunner.limits.breaker import CANARY, Breaker
from batchrunner.limits.pace import RequestPace, TokenPace
from batchrunner.limits.retries import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.errors import BatchrunnerError, RequestError
    from batchrunner.limits.concurrency import Concurrency

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""How long a lane pauses on signals that give no hint, one after another: rate limits, no open file left."""


def _tell_nobody(event: str, **fields: object) -> None:
    """For lanes whose decisions nobody records."""


class Lane:
    """One allowance: a key, or a key and an agent or model.

    `admit` is called by one task at a time (the caller's turnstile keeps the order).
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: Concurrency,
        breaker: Breaker,
        retries: RetryBudget | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        tell: Callable[..., None] = _tell_nobody,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._tell, self._uniform = name, tell, uniform
        self.concurrency, self.breaker = concurrency, breaker
        self.retries = retries or RetryBudget()
        self.in_flight = 0
        self.throttled_count = 0
        self.canary: int | None = CANARY
        self.trouble = ""
        """The last error of an attempt."""
        self.ended: BatchrunnerError | None = None
        """Why nothing more goes out on this lane in this run."""
        self._clock = clock
        self._requests = RequestPace(requests_per_minute) if requests_per_minute else None
        self._tokens = TokenPace(tokens_per_minute, now=clock()) if tokens_per_minute else None
        self._paused_until = 0.0
        self._silent_signals = 0
        self._signal_at = 0.0
        self._retries_emptied = False

    @property
    def requests_per_minute(self) -> float | None:
        return self._requests.per_minute if self._requests else None

    @property
    def slots(self) -> int:
        """How many requests may be in flight now."""
        if self.breaker.open:
            return 1
        return min(self.concurrency.limit, self.canary) if self.canary is not None else self.concurrency.limit

    @property
    def unpaced(self) -> bool:
        """Whether `admit` and `rest` have nothing to wait for, now and as long as nothing fails."""
        if self._requests is not None or self._tokens is not None:
            return False
        return self.ended is None and self._paused_until <= self._clock()

    def paused_s(self) -> float:
        return max(0.0, self._paused_until - self._clock())

    async def rest(self) -> None:
        """Wait until the lane is not paused."""
        while (wait_s := self.paused_s()) > 0:  # noqa: ASYNC110 (the end of a pause moves)
            await anyio.sleep(wait_s)

    async def admit(self, tokens: int) -> None:
        """Wait until one more request of an estimated `tokens` may start, and book it."""
        if self._requests is not None:
            await self._requests.take()
        if self._tokens is not None:
            while (wait_s := self._tokens.wait_s(self._clock())) > 0:  # noqa: ASYNC110 (settling moves it)
                await anyio.sleep(wait_s)
            self._tokens.take(tokens, self._clock())

    def took(self, *, retry: bool) -> None:
        """A request has been admitted and is about to be sent."""
        self.retries.took(self._clock(), retry=retry)

    def may_retry(self) -> bool:
        """Whether the budget of retries has one left."""
        if self.retries.spare(self._clock()):
            return True
        if not self._retries_emptied:
            self._retries_emptied = True
            requests, retries = self.retries.requests, self.retries.retries
            self._tell("retry_budget_emptied", lane=self.name, requests=requests, retries=retries)
        return False

    def retry_wait_s(self) -> float:
        return self.retries.wait_s(self._clock())

    def open_now(self) -> bool:
        """Whether `admit` would return without waiting."""
        now = self._clock()
        return (
            self._paused_until <= now
            and (self._requests is None or self._requests.open())
            and (self._tokens is None or self._tokens.wait_s(now) == 0)
        )

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def settle(self, *, reserved: int, used: int) -> None:
        if self._tokens is not None:
            self._tokens.settle(reserved, used)

    def succeeded(self, *, latency_s: float) -> None:
        self._silent_signals = 0
        if self.breaker.open:
            self._tell("lane_up", lane=self.name)
        self.breaker.succeeded()
        self.concurrency.succeeded(in_flight=self.in_flight, latency_s=latency_s)

    def failed(self, error: RequestError, item_id: str, *, started_at: float) -> None:
        """Take in a failed attempt begun at `started_at`. May pause the lane, open its breaker, or end it."""
        now, self.trouble = self._clock(), str(error)
        if error.scope in ("lane", "machine") or error.error_type == "rate_limit":
            self._throttled(error, started_at=started_at, now=now)
        was_open = self.breaker.open
        self.ended = self.ended or self.breaker.failed(error, item_id, window=self.slots, now=now)
        if self.breaker.open and (not was_open or self.in_flight <= 1):
            probe_s = self.breaker.probed()
            self._tell("lane_down", lane=self.name, probe_s=probe_s, error=str(error))
            self.pause(probe_s)

    def _throttled(self, error: RequestError, *, started_at: float, now: float) -> None:
        if error.error_type == "rate_limit":
            self.throttled_count += 1
        if self._cuts(error, started_at=started_at, now=now):
            self._tell("concurrency_cut", lane=self.name, concurrency=self.concurrency.limit, error=str(error))
        # With jitter, so that processes that were throttled together do not come back together.
        if error.wait_s:
            self._rest(error.wait_s + self._uniform(0.0, min(1.0, error.wait_s / 10)), error)
        elif started_at >= self._signal_at:
            self._rest(PAUSES_S[min(self._silent_signals, len(PAUSES_S) - 1)] * self._uniform(1.0, 1.25), error)
            self._silent_signals += 1
            self._signal_at = now

    def _cuts(self, error: RequestError, *, started_at: float, now: float) -> bool:
        if error.scope == "machine":
            return self.concurrency.crowded(started_at=started_at, now=now)
        return error.error_type == "rate_limit" and self.concurrency.throttled(started_at=started_at, now=now)

    def _rest(self, seconds: float, error: RequestError) -> None:
        if seconds > self.paused_s():
            self._tell("lane_paused", lane=self.name, seconds=seconds, error_type=error.error_type)
        self.pause(seconds)
