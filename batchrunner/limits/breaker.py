"""Knows when going on is pointless: the first requests are a canary, trouble that hits everyone opens the breaker."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from batchrunner.errors import BatchrunnerError, ProviderRefused, ProviderUnavailable, RequestError

if TYPE_CHECKING:
    from batchrunner.records import Outcome

CANARY = 3
SAME_REFUSALS = 20
PERMISSION_REFUSALS = 3
TROUBLE = frozenset({"connection", "timeout", "server", "overloaded", "malformed", "truncated", "empty", "conflict"})
HELD = frozenset({"permission", "bad_request", "session"})
"""What may be the whole run's fault; `session` follows from one of the others."""


class Refusals:
    """Refusals before the first success: held back, since they may be the whole run's and not the items'.

    `judge` gives the error that ends the run once they show a pattern. `release` gives back the held
    outcomes when the first success proves that refusals are the items' own.
    """

    def __init__(self) -> None:
        self.passed = False
        self.held: list[Outcome] = []
        self._same: tuple[str, int] = ("", 0)
        self._permission: set[str] = set()

    def counts(self, error_type: str | None) -> bool:
        return not self.passed and error_type in HELD

    def hold(self, outcome: Outcome) -> bool:
        """Keep an outcome back; False when there are too many to keep."""
        if len(self.held) >= 10 * SAME_REFUSALS:
            return False
        self.held.append(outcome)
        return True

    def judge(self, outcome: Outcome, label: str) -> BatchrunnerError | None:
        if outcome.error_type == "session":
            return None
        error = f"{label}: {outcome.error}"
        if outcome.error_type == "permission":
            self._permission.add(outcome.item_id)
            if len(self._permission) >= PERMISSION_REFUSALS:
                return ProviderRefused(f"refused on the first {len(self._permission)} items: {error}")
            return None
        message, count = self._same
        # By the provider's words alone: with several keys the labels take turns.
        self._same = (outcome.error or "", count + 1 if message == outcome.error else 1)
        if self._same[1] >= SAME_REFUSALS:
            return ProviderRefused(f"refused {SAME_REFUSALS} times in a row, without one success: {error}")
        return None

    def release(self) -> list[Outcome]:
        self.passed = True
        held, self.held = self.held, []
        return held


class Breaker:
    """The health of one lane.

    Closed while some attempts come through. When the last max(3, concurrency) attempts of at least
    three items all met trouble it opens: one probe at a time, after `probe_s` times 1, 2, 4 ... `failed` raises
    nothing; it returns the error that ends the lane once it has been open for `down_s`. The same
    clock ends a lane that gets nothing but rate-limit signals, or no open files to connect with.
    """

    def __init__(self, *, down_s: float, probe_s: float = 1.0) -> None:
        self.opened_at: float | None = None
        self._probe_s = probe_s
        self._down_s = down_s
        self._failing: deque[str] = deque(maxlen=1_000)
        self._throttled_since: float | None = None
        self._probes = 0

    @property
    def open(self) -> bool:
        return self.opened_at is not None

    def succeeded(self) -> None:
        self.opened_at, self._throttled_since, self._probes = None, None, 0
        self._failing.clear()

    def failed(self, error: RequestError, item_id: str, *, window: int, now: float) -> BatchrunnerError | None:
        """Count a failed attempt. `window` is the lane's present concurrency."""
        if error.error_type == "rate_limit" or error.scope == "machine":
            return self._throttled(error, now)
        self._throttled_since = None
        if error.error_type not in TROUBLE or error.verdict != "retry":
            self.succeeded()  # The provider read the request and answered it: it is not down.
            return None
        self._failing.append(item_id)
        if self.opened_at is None and self._everyone(max(CANARY, window)):
            self.opened_at, self._probes = now, 0
        if self.opened_at is not None and now - self.opened_at + self.probe_wait_s() > self._down_s:
            down_s = now - self.opened_at
            return ProviderUnavailable(f"no usable answer for {down_s:.0f} s (retry.down_s {self._down_s:g}): {error}")
        return None

    def _everyone(self, window: int) -> bool:
        window = min(window, self._failing.maxlen or window)
        if len(self._failing) < window:
            return False
        return len(set(islice(reversed(self._failing), window))) >= CANARY

    def _throttled(self, error: RequestError, now: float) -> BatchrunnerError | None:
        if self._throttled_since is None:
            self._throttled_since = now
        if now - self._throttled_since > self._down_s:
            what = "rate-limit refusals" if error.error_type == "rate_limit" else "trouble on this machine"
            return ProviderUnavailable(f"nothing but {what} for {self._down_s:g} s: {error}")
        return None

    def probe_wait_s(self) -> float:
        return self._probe_s * 2.0 ** min(self._probes, 6)

    def probed(self) -> float:
        """Seconds to pause before the next probe."""
        wait_s = self.probe_wait_s()
        self._probes += 1
        return wait_s
