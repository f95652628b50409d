"""How many requests a lane has in flight: a fixed number, or one that feels its way."""

from __future__ import annotations

START = 8
MOST = 999
CUT = 0.7
INFLATION = 2.0
"""Growth stops while replies take this many times as long as they did at their quickest."""


class Concurrency:
    """The number of slots of one lane.

    A fixed number stays, but for a lack of open files: that cuts it, and it grows back by one a round
    trip. `auto` starts at 8, doubles a round trip while concurrency is what binds, after the first
    rate-limit signal grows by one a round trip, and is cut by three tenths on each further signal; a
    burst of signals from requests that were already out counts once.
    """

    def __init__(self, setting: int | str, *, most: int = MOST) -> None:
        self.fixed = setting != "auto"
        self.wanted = min(int(setting), most) if self.fixed else most
        """The most that is asked for; `cap` may have set less."""
        self._limit = float(self.wanted if self.fixed else min(START, most))
        self._most = self.wanted
        self._threshold = float(most)
        self._cut_at = 0.0
        self._latency_s: float | None = None
        self._quickest_s = 0.0

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @property
    def soon(self) -> int:
        """How many slots there may be before long."""
        return self.limit if self.fixed else min(2 * self.limit, self._most)

    def cap(self, most: int) -> None:
        """Stay within `most`, whatever was asked for."""
        self._most = max(1, min(self.wanted, most))
        self._limit = min(self._limit, self._most)

    def succeeded(self, *, in_flight: int, latency_s: float) -> None:
        """A reply came with `in_flight` requests out, itself included."""
        if self.fixed and self._limit >= self._most:
            return
        self._feel(latency_s)
        inflated = self._latency_s is not None and self._latency_s > INFLATION * max(self._quickest_s, 0.001)
        if in_flight < self.limit or inflated:
            return
        step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
        self._limit = min(self._most, self._limit + step)

    def _feel(self, latency_s: float) -> None:
        weight = 1.0 / max(8.0, self._limit)
        self._latency_s = (
            latency_s if self._latency_s is None else self._latency_s + weight * (latency_s - self._latency_s)
        )
        # The quickest drifts up slowly, so that one lucky reply does not rule for ever.
        self._quickest_s = min(self._latency_s, self._quickest_s * (1 + weight / 2_000) or self._latency_s)

    def throttled(self, *, started_at: float, now: float) -> bool:
        """A rate-limit signal for a request begun at `started_at`. True when it cut the number."""
        return not self.fixed and self.crowded(started_at=started_at, now=now)

    def crowded(self, *, started_at: float, now: float) -> bool:
        """There was no file left for a request begun at `started_at`. True when it cut the number."""
        if started_at < self._cut_at:
            return False
        self._limit = max(1.0, self._limit * CUT)
        self._threshold = self._limit
        self._cut_at = now
        return True
