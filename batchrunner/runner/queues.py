"""What waits: items by lane, trips for their next attempt, and those who wait for either."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope, Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.records import Item
    from batchrunner.stack import Channel
    from batchrunner.worker import Trip

READ_AHEAD = 256
"""New items that a backlog takes, or as many as there are slots to work on them, if that is more."""
WAITING_PER_SLOT = 4
"""A lane with more items in backoff than this many per slot takes no new ones."""


class Bell:
    """Wakes everyone who waits for something to change."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, seconds: float | None = None) -> None:
        if self._event is None:
            self._event = anyio.Event()
        if seconds is None:
            await self._event.wait()
            return
        with anyio.move_on_after(seconds):
            await self._event.wait()


class Backlog:
    """Items that want the same lanes: new ones in input order, and those that wait for their next attempt.

    `held` are retries that were due when there was no budget for them; the first of them goes first.
    """

    def __init__(self) -> None:
        self.fresh: deque[Item] = deque()
        self.waiting: list[tuple[float, int, Trip]] = []
        self.held: deque[Trip] = deque()
        self.most_fresh = READ_AHEAD
        self.closed = False
        self.bell = Bell()
        self._order = count()

    def add(self, item: Item) -> None:
        self.fresh.append(item)
        self.bell.ring()

    def add_first(self, item: Item) -> None:
        """An item of a session that has begun goes before those of others."""
        self.fresh.appendleft(item)
        self.bell.ring()

    def later(self, trip: Trip, due: float) -> None:
        heapq.heappush(self.waiting, (due, next(self._order), trip))
        self.bell.ring()

    def close(self) -> None:
        self.closed = True
        self.bell.ring()

    def abandon(self) -> list[Item | Trip]:
        """Nothing here will be sent any more: all that was here, trips where they had been begun."""
        left: list[Item | Trip] = [*self.held, *(trip for _, _, trip in self.waiting), *self.fresh]
        for queue in (self.held, self.waiting, self.fresh):
            queue.clear()
        self.close()
        return left

    def ready(self, now: float, *, slots: int, may_retry: Callable[[], bool]) -> Item | Trip | None:
        """What goes next: what is due, retries within their budget; else a new item unless too many wait already."""
        if self.held and may_retry():
            return self.held.popleft()
        while self.waiting and self.waiting[0][0] <= now:
            trip = heapq.heappop(self.waiting)[2]
            if not trip.retry or may_retry():
                return trip
            self.held.append(trip)
        if self.fresh and self.waits <= WAITING_PER_SLOT * slots:
            return self.fresh.popleft()
        return None

    def idle_s(self, now: float, *, retry_wait_s: Callable[[], float]) -> float | None:
        """How long nothing will be ready if nothing happens; None for ever."""
        waits_s = [self.waiting[0][0] - now] if self.waiting else []
        return min([*waits_s, retry_wait_s()] if self.held else waits_s, default=None)

    @property
    def full(self) -> bool:
        """Whether no more new items are wanted here."""
        return len(self.fresh) >= self.most_fresh

    @property
    def low(self) -> bool:
        """Whether it is time for new items: half of the room is free."""
        return len(self.fresh) <= self.most_fresh // 2

    @property
    def waits(self) -> int:
        """Items that have been tried and will be again."""
        return len(self.waiting) + len(self.held)

    @property
    def spent(self) -> bool:
        return self.closed and not self.fresh and not self.waits


@dataclass(slots=True, kw_only=True, eq=False)
class Desk:
    """One lane's workers and the backlog they draw from."""

    channel: Channel
    backlog: Backlog
    workers: int = 0
    turnstile: Lock = field(default_factory=lambda: Lock(fast_acquire=True))
    next_up: Trip | None = None
    """The trip of the worker whose turn it is, while it waits for something; nobody overtakes it."""
    gate: CancelScope | None = None
    """Around the one worker that waits for its turn, so that a drain does not wait with it."""
