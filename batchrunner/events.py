"""Counting: what a run has come to so far, folded from what happens to its items."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.records import Outcome

RATE_WINDOW_S = 60


@dataclass(slots=True, kw_only=True)
class Failure:
    """How often one error type stands in the table, and where first."""

    count: int = 0
    item_id: str = ""
    row: int = 0


class Spread:
    """Quantiles of seconds, to about five per cent, in constant space."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def add(self, seconds: float) -> None:
        bucket = round(math.log(max(seconds, 1e-4)) * 20)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._total += 1

    def quantile(self, share: float) -> float | None:
        left = self._total * share
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return math.exp(bucket / 20)
        return None


class Slowest:
    """The few items that took longest from their first preparation to their outcome."""

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._found: list[tuple[int, int, str, int]] = []
        self._from_us = -1

    def add(self, outcome: Outcome) -> None:
        if outcome.started_at is None or outcome.finished_at is None or not outcome.attempts:
            return
        took_us = outcome.finished_at - outcome.started_at
        if took_us <= self._from_us:
            return
        self._found.append((took_us, outcome.row, outcome.item_id, outcome.attempts))
        self._found.sort(reverse=True)
        if len(self._found) >= self._most:
            del self._found[self._most :]
            self._from_us = self._found[-1][0]

    def facts(self) -> list[dict[str, Any]]:
        """The slowest first."""
        return [
            {"item_id": item_id, "row": row, "seconds": round(took_us / 1e6, 3), "attempts": attempts}
            for took_us, row, item_id, attempts in self._found
        ]


class Rate:
    """Events per minute over the last minute, or since the first one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[list[float]] = deque(maxlen=RATE_WINDOW_S + 1)
        self._first: float | None = None

    def add(self) -> None:
        now = self._clock()
        if self._first is None:
            self._first = now
        if self._seconds and self._seconds[-1][0] == int(now):
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([int(now), 1])

    def per_minute(self) -> float:
        now = self._clock()
        if self._first is None:
            return 0.0
        window_s = min(float(RATE_WINDOW_S), max(now - self._first, 1.0))
        return sum(n for second, n in self._seconds if second > now - window_s - 1) / window_s * 60


@dataclass(slots=True, kw_only=True)
class Counts:
    """Items of the table by outcome, and what they used."""

    succeeded: int = 0
    rejected: int = 0
    exhausted: int = 0
    length: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    possibly_billed: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        return self.succeeded + self.rejected + self.exhausted

    def add(self, outcome: Outcome) -> None:
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        self.length += outcome.finish_reason == "length"
        self.add_spent(outcome)
        if outcome.error_type is not None:
            self._fail(outcome.error_type, outcome)

    def add_spent(self, outcome: Outcome) -> None:
        """What an outcome used, or an answered turn."""
        if outcome.origin == "duplicate":
            return  # A copy: nothing was spent on it.
        self.prompt_tokens += (outcome.prompt_tokens or 0) + (outcome.failed_prompt_tokens or 0)
        self.completion_tokens += (outcome.completion_tokens or 0) + (outcome.failed_completion_tokens or 0)
        self.possibly_billed += outcome.possibly_billed
        if outcome.attempts:
            known = self.cost_usd is not None and outcome.cost_usd is not None
            self.cost_usd = self.cost_usd + outcome.cost_usd if known else None  # type: ignore[operator]

    def _fail(self, error_type: str, outcome: Outcome) -> None:
        failure = self.failures.get(error_type)
        if failure is None:
            failure = self.failures[error_type] = Failure(item_id=outcome.item_id, row=outcome.row)
        failure.count += 1
        if outcome.row < failure.row:
            failure.item_id, failure.row = outcome.item_id, outcome.row


class Tally:
    """The live count of one invocation. Implements `runner.Watch`; never blocks.

    `before` is what the run had come to when this invocation began, `reopened` how many of its
    items are exhausted and thus tried again.
    """

    def __init__(self, *, total: int, before: Counts, clock: Callable[[], float]) -> None:
        self.total, self.before = total, before
        self.now = Counts()
        self.sent = 0
        self.left_possibly_billed = 0
        self.latency, self.rate, self.slowest = Spread(), Rate(clock), Slowest()
        self.began_at = clock()
        self._clock = clock
        self._listeners: list[Callable[[Outcome], None]] = []

    def listen(self, hear: Callable[[Outcome], None]) -> None:
        self._listeners.append(hear)

    def answered(self, turn: Outcome) -> None:
        """A turn of an item that goes on."""
        self.now.add_spent(turn)
        self._took(turn.latency_s)

    def settled(self, outcome: Outcome) -> None:
        self.now.add(outcome)
        self._took(outcome.latency_s)
        self.slowest.add(outcome)
        for hear in self._listeners:
            hear(outcome)

    def _took(self, latency_s: float | None) -> None:
        if latency_s is not None:
            self.latency.add(latency_s)

    def left(self, *, possibly_billed: int) -> None:
        self.left_possibly_billed += possibly_billed

    def tried(self) -> None:
        self.sent += 1
        self.rate.add()

    @property
    def done(self) -> int:
        """Items that need nothing more from this invocation."""
        return min(self.total, self.settled_before + self.now.settled)

    @property
    def settled_before(self) -> int:
        """Items that needed nothing from this invocation."""
        return self.before.succeeded + self.before.rejected

    @property
    def seconds(self) -> float:
        return self._clock() - self.began_at

    def failed(self) -> int:
        return self.now.rejected + self.now.exhausted + self.before.rejected

    def failed_by_type(self) -> Mapping[str, Failure]:
        return self.now.failures

    def left_s(self) -> float | None:
        """Seconds to the end at the present rate of settling, None while there is none."""
        settled = self.now.settled
        if not settled or self.seconds < 1:
            return None
        return (self.total - self.done) / (settled / self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of a run, for whoever shows it."""

    name: str
    done: int
    total: int
    succeeded: int
    failed: int
    failed_by_type: Mapping[str, int]
    per_minute: float
    limit_per_minute: float | None
    in_flight: int
    most_in_flight: int
    """More than this were never in flight."""
    slots: int
    oldest_s: float
    waiting: int
    throttled: int
    tokens: int
    cost_usd: float | None
    seconds: float
    left_s: float | None
    draining: bool
    notes: tuple[str, ...] = ()
    """What holds the run up just now: paused lanes, an open breaker, a rate that refusals have taught."""
    lanes: tuple[Mapping[str, object], ...] = ()
    """How each lane is paced, the first few."""
    oldest: tuple[Mapping[str, object], ...] = ()
    """The items that have been on their way for longest."""
    slowest: tuple[Mapping[str, object], ...] = ()
    """The settled items that took longest."""


class Display(Protocol):
    """Shows progress to whoever watches. Called from one thread at a time; never raises for a stream that has gone."""

    period_s: float
    """Between two calls of `progress`."""

    def began(self, line: str, facts: dict[str, Any]) -> None: ...
    def progress(self, now: Progress) -> None: ...
    def say(self, line: str) -> None: ...
    def ended(self) -> None: ...
