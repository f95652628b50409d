"""Even pacing: no opening burst, no catching up beyond what a server's own window forgives."""

from __future__ import annotations

from aiolimiter import AsyncLimiter

SLACK = 0.004
"""Share of the allowance left unused, so that jitter on the way never packs one request too many into a window."""


class RequestPace:
    """Lets `per_minute` requests through, evenly. First come, first served: one caller at a time.

    aiolimiter serves a full period at once, so its period is made as short as a few requests: enough
    to make up for late timers, too few for a burst.
    """

    def __init__(self, per_minute: float) -> None:
        interval_s = 60.0 / per_minute * (1 + SLACK)
        at_once = 1 + max(1 if per_minute >= 300 else 0, int(min(per_minute * 0.003, per_minute / 60 * 0.025)))
        self.per_minute = per_minute
        self._limiter = AsyncLimiter(at_once, at_once * interval_s)

    def open(self) -> bool:
        return self._limiter.has_capacity()

    async def take(self) -> None:
        await self._limiter.acquire()


class TokenPace:
    """Tokens per minute as a debt that time pays off: a request goes when the debt is below a second's worth.

    `take` books an estimate, `settle` puts the real figure in its place.
    """

    def __init__(self, per_minute: float, *, now: float) -> None:
        self.per_minute = per_minute
        self._per_s = per_minute / 60.0 * (1 - SLACK)
        self._paid_at = now

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may start; 0 when it may start now."""
        return max(0.0, self._paid_at - now)

    def take(self, tokens: int, now: float) -> None:
        self._paid_at = max(self._paid_at, now) + tokens / self._per_s

    def settle(self, reserved: int, used: int) -> None:
        self._paid_at += (used - reserved) / self._per_s
