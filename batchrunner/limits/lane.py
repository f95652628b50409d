"""A lane: what shares one limit. Paces, pauses, counts what is in flight, and holds no task."""

from __future__ import annotations

import random
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio

from batchrunner.limits.breaker import CANARY, Breaker
from batchrunner.limits.health import Health
from batchrunner.limits.leased import LeasedThrottle
from batchrunner.limits.retries import RetryBudget
from batchrunner.limits.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.errors import BatchrunnerError, RequestError
    from batchrunner.limits.concurrency import Concurrency
    from batchrunner.limits.leased import Stake

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""How long a lane pauses on signals that give no hint, one after another: rate limits, no open file left."""
LONGEST_PAUSE_S = 300.0


def _tell_nobody(event: str, **fields: object) -> None:
    """For lanes whose decisions nobody records."""


class Lane:
    """One allowance: a key, or a key and an agent or model.

    `admit` is called by one task at a time (the caller's turnstile keeps the order). `share` is the part of
    an announced limit that this process may use; the limits given are its own already. With a `stake` in a
    lease they are those of all processes together.
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
        share: float = 1.0,
        stake: Stake | None = None,
        longest_pause_s: float = LONGEST_PAUSE_S,
        tell: Callable[..., None] = _tell_nobody,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._tell, self._uniform = name, tell, uniform
        self.concurrency, self.breaker = concurrency, breaker
        self.retries = retries or RetryBudget()
        self.health = Health()
        self.throttle: Throttle = (Throttle if stake is None else partial(LeasedThrottle, stake, clock))(
            requests_per_minute,
            tokens_per_minute,
            share=share,
            now=clock(),
            tell=lambda e, **f: tell(e, lane=name, **f),
        )
        self.in_flight = 0
        self.throttled_count = 0
        self.trouble = ""
        """The last error of an attempt."""
        self.ended: BatchrunnerError | None = None
        """Why nothing more goes out on this lane in this run."""
        self._canary: int | None = CANARY
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._paused_until = 0.0
        self._silent_signals = 0
        self._signal_at = 0.0
        self._retries_emptied = self._failing = False
        concurrency.changed, concurrency.eased = self._resize, self._tell_eased
        self.slots = 1
        """How many requests may be in flight now."""
        self._resize()

    @property
    def canary(self) -> int | None:
        """How many may be in flight until the first success; None after it."""
        return self._canary

    @canary.setter
    def canary(self, most: int | None) -> None:
        self._canary = most
        self._resize()

    def _tell_eased(self, latency_s: float, usual_s: float) -> None:
        found = {"latency_s": round(latency_s, 3), "usual_s": round(usual_s, 3)}
        self._tell("concurrency_eased", lane=self.name, concurrency=self.concurrency.limit, **found)

    def facts(self) -> dict[str, object]:
        """Where the lane stands, for whoever asks how the run is paced."""
        throttle = self.throttle
        rate, tokens = throttle.requests_per_minute, throttle.tokens
        return {
            "lane": self.name,
            "requests_per_minute": None if rate is None else round(rate, 1),
            "requests_by": throttle.source,
            "tokens_per_minute": None if tokens is None else tokens.per_minute,
            "slots": self.slots,
            "in_flight": self.in_flight,
            "paused_s": round(self.paused_s(), 1),
            "throttled": self.throttled_count,
            "failing": round(self.health.failing, 2),
            "ended": None if self.ended is None else str(self.ended),
        }

    def _resize(self) -> None:
        limit, most = self.concurrency.limit, self._canary
        self.slots = 1 if self.breaker.open else limit if most is None else min(limit, most)

    @property
    def requests_per_minute(self) -> float | None:
        return self.throttle.requests_per_minute

    @property
    def counts_tokens(self) -> bool:
        """Whether anything is made of an estimate of tokens here."""
        return self.throttle.tokens is not None

    def paused_s(self) -> float:
        return max(0.0, self._paused_until - self._clock())

    async def rest(self) -> None:
        """Wait until the lane is not paused."""
        while (wait_s := self.paused_s()) > 0:  # noqa: ASYNC110 (the end of a pause moves)
            await anyio.sleep(wait_s)

    async def admit(self, tokens: int, *, rests: bool = True) -> None:
        """Wait until one more request of an estimated `tokens` may start, and book it.

        Where others that share a lease have paused the lane nothing is booked, unless it `rests` for so long.
        """
        while (wait_s := self.throttle.wait_s(self._clock())) > 0:
            if wait_s < inf:  # Else there is no slice in hand.
                await anyio.sleep(wait_s)
            elif (paused_s := await self.throttle.claim(tokens)) > 0:
                self.pause(paused_s)
                if not rests:
                    return
                await self.rest()
        self.throttle.take(tokens, self._clock())

    def admit_now(self, tokens: int) -> bool:
        """Book a request of an estimated `tokens` if nothing has to be waited for; whether it may start."""
        now = self._clock()
        if self._paused_until > now or self.ended is not None or self.throttle.wait_s(now) > 0:
            return False
        self.throttle.take(tokens, now)
        return True

    def took(self, *, retry: bool) -> None:
        """A request has been admitted and is about to be sent."""
        now = self._clock()
        self.retries.took(now, retry=retry)
        self.throttle.took(now)

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
        return self._paused_until <= now and self.throttle.wait_s(now) == 0

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self.throttle.rest_until(self._paused_until)

    @property
    def healthy(self) -> bool:
        """Whether what failed here and there may be tried again soon."""
        return not (self.health.poor or self.breaker.open)

    def patience(self, error: RequestError) -> float:
        """The part of its backoff that an item waits which met `error`: little while most attempts come through."""
        return 1.0 if error.error_type == "rate_limit" or self.breaker.open else self.health.backoff

    def settle(self, *, reserved: int, used: int) -> None:
        self.throttle.settle(reserved, used)

    def succeeded(self, *, latency_s: float) -> None:
        if self._failing:
            self._recover(latency_s)
        elif self.throttle.curious:
            now = self._clock()
            self.throttle.came_through(started_at=now - latency_s, now=now)
        pace = self.throttle.requests
        per_s = None if pace is None else pace.per_minute / 60.0
        self.concurrency.succeeded(in_flight=self.in_flight, latency_s=latency_s, per_s=per_s)

    def _recover(self, latency_s: float) -> None:
        now = self._clock()
        self.throttle.came_through(started_at=now - latency_s, now=now)
        self._silent_signals = 0
        if self.breaker.open:
            self._tell("lane_up", lane=self.name)
        self.breaker.succeeded()
        self._failing = self.health.succeeded()
        self._resize()

    def failed(self, error: RequestError, item_id: str, *, started_at: float) -> None:
        """Take in a failed attempt begun at `started_at`. May pause the lane, open its breaker, or end it."""
        now, self.trouble, self._failing = self._clock(), str(error), True
        if error.error_type == "rate_limit" or error.scope == "machine":
            self._throttled(error, started_at=started_at, now=now)
        elif error.verdict == "retry":
            self.health.failed()
            # A wait that the server names is the lane's; without one a 503 here and there slows nobody down,
            # once it is known that most come through.
            if error.scope == "lane" and (error.wait_s or self.health.poor or self._canary is not None):
                self._throttled(error, started_at=started_at, now=now)
        was_open = self.breaker.open
        self.ended = self.ended or self.breaker.failed(error, item_id, window=self.slots, now=now)
        if self.breaker.open and (not was_open or self.in_flight <= 1):
            probe_s = self.breaker.probed()
            self._tell("lane_down", lane=self.name, probe_s=probe_s, error=str(error))
            self.pause(probe_s)
        self._resize()

    def _throttled(self, error: RequestError, *, started_at: float, now: float) -> None:
        if error.error_type == "rate_limit":
            self.throttled_count += 1
        if self._cuts(error, started_at=started_at, now=now):
            self._tell("concurrency_cut", lane=self.name, concurrency=self.concurrency.limit, error=str(error))
        # With jitter, so that processes that were throttled together do not come back together; once for a burst.
        if error.wait_s:
            jitter_s = self._uniform(0.0, min(1.0, error.wait_s / 20)) if self._paused_until <= now else 0.0
            self._rest(error.wait_s + jitter_s, error)
        elif started_at >= self._signal_at:
            self._rest(PAUSES_S[min(self._silent_signals, len(PAUSES_S) - 1)] * self._uniform(1.0, 1.25), error)
            self._silent_signals += 1
            self._signal_at = now
        # Whoever names a number of requests in flight has said how hard to try: only `auto` learns a rate.
        if error.error_type == "rate_limit" and not self.concurrency.fixed:
            self.throttle.refused(started_at=started_at, pause_s=error.wait_s or self.paused_s())

    def _cuts(self, error: RequestError, *, started_at: float, now: float) -> bool:
        if error.scope == "machine":
            return self.concurrency.crowded(started_at=started_at, now=now)
        if error.error_type != "rate_limit":
            return False
        return self.concurrency.throttled(started_at=started_at, now=now, vain=self.throttle.in_vain)

    def _rest(self, seconds: float, error: RequestError) -> None:
        if seconds > 1.2 * self.paused_s():
            self._tell("lane_paused", lane=self.name, seconds=seconds, error_type=error.error_type)
        if error.error_type == "rate_limit":
            self.throttle.share_pause(seconds)
        self.pause(seconds)

    def announced(
        self,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        hold_s: float | None = None,
        sent_at: float | None = None,
    ) -> None:
        """What a reply's headers say: limits a minute, and that nothing is left for `hold_s`.

        These count from `sent_at`, for a server books a request as it arrives; from now where it is None. A
        longer hold than a lane ever pauses is left to the refusals that follow, and one of hardly more than the
        time between two requests to the pace: a server that grants one at a time has nothing left after each.
        """
        now = self._clock()
        self.throttle.announced(requests, tokens, now)
        if hold_s is None:
            return
        held_s = hold_s if sent_at is None else sent_at + hold_s - now
        pace = self.requests_per_minute
        if (120.0 / pace if pace else 0.0) < held_s <= self._longest_pause_s:
            if held_s > self.paused_s() + 1.0 and held_s > self.throttle.wait_s(now) + 1.0:
                self._tell("lane_paused", lane=self.name, seconds=held_s, error_type=None, reason="nothing left")
            self.throttle.share_pause(held_s)
            self.pause(held_s)
