"""Even pacing: no opening burst, no catching up beyond what a server's own window forgives."""

from __future__ import annotations

SLACK = 0.002
"""Share of an allowance left unused, so that jitter on the way never packs one request too many into a window."""


class RequestPace:
    """One request every so often. A request that goes late is made up for, by a few at once and no more.

    Not aiolimiter's: here the rate changes while it is kept, and a request is let through without a task switch.
    """

    __slots__ = ("_due", "early_s", "interval_s", "per_minute")

    def __init__(self, per_minute: float) -> None:
        self._due = self.interval_s = 0.0
        self.set(per_minute)

    def set(self, per_minute: float, *, most: int | None = None) -> None:
        """Keep to another rate; `most`: it is a server's own, which takes so many together and is no promise."""
        self.per_minute = per_minute
        together = at_once(per_minute) if most is None else min(most, at_once(per_minute))
        # What a server takes together is no promise of ours: no slack is needed for it.
        interval_s = 60.0 / per_minute if most is not None else kept_interval_s(per_minute)
        # The last request was booked at the old rate.
        self._due += interval_s - self.interval_s if self._due else 0.0
        self.interval_s = interval_s
        self.early_s = (together - 1) * self.interval_s

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may start; 0 when it may start now."""
        return max(0.0, self._due - self.early_s - now)

    def booked_at(self, now: float) -> float:
        """The instant that stands for the next request if it starts at `now`: earlier where it makes up for others."""
        return max(self._due, now) - self.early_s

    def take(self, now: float) -> None:
        self._due = max(self._due, now) + self.interval_s

    def begin(self, instant: float) -> None:
        """Go on at `instant`, whatever was booked."""
        self._due = instant + self.early_s

    def rest_until(self, instant: float) -> None:
        """Make up for nothing that was not sent before `instant`, so that no burst follows a pause."""
        self._due = max(self._due, instant + self.early_s)


def at_once(per_minute: float) -> int:
    """How many requests may go together: enough to make up for late timers, too few for a burst."""
    return 1 + max(1 if per_minute >= 300 else 0, int(min(per_minute * 0.003, per_minute / 60 * 0.025)))


def kept_interval_s(per_minute: float) -> float:
    """Seconds from request to request: those that go together must not be the ones too many in a full minute."""
    return 60.0 / per_minute * (1 + max(SLACK, 1.2 * (at_once(per_minute) - 1) / per_minute))


class TokenPace:
    """Tokens per minute as a debt that time pays off: a request goes when nothing is owed.

    `take` books an estimate, `settle` puts the real figure in its place.
    """

    __slots__ = ("_paid_at", "_per_s", "per_minute")

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._paid_at = now
        self.set(per_minute)

    def set(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._per_s = per_minute / 60.0 * (1 - SLACK)

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may start; 0 when it may start now."""
        return max(0.0, self._paid_at - now)

    def take(self, tokens: int, now: float) -> None:
        self._paid_at = max(self._paid_at, now) + tokens / self._per_s

    def begin(self, instant: float) -> None:
        """Nothing is owed from `instant` on."""
        self._paid_at = instant

    def owed_s(self, instant: float) -> float:
        """For how long after `instant` what was taken has still to be paid off."""
        return max(0.0, self._paid_at - instant)

    def is_owed(self, instant: float) -> bool:
        """Whether what was taken has to be paid off until `instant` or longer."""
        return self._paid_at >= instant

    def in_s(self, tokens: int) -> float:
        """How long so many are the whole allowance."""
        return tokens / self._per_s

    def settle(self, reserved: int, used: int) -> None:
        self._paid_at += (used - reserved) / self._per_s
