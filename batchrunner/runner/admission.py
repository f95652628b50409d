"""Which trip a worker takes next: picked, prepared, paid for, and let through by its lane."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from anyio import CancelScope

from batchrunner.errors import BudgetReached, StoreError
from batchrunner.limits.breaker import CANARY
from batchrunner.runner.queues import Bell
from batchrunner.worker import Trip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchrunner.limits.breaker import Refusals
    from batchrunner.records import Item, Outcome
    from batchrunner.runner.brakes import Brakes
    from batchrunner.runner.ports import Watch
    from batchrunner.runner.queues import Desk
    from batchrunner.runner.sessions import Sessions
    from batchrunner.worker import Worker


class Admission:
    """Gives trips to the workers of all desks. `settle` takes the outcome of an item that is not to be sent.

    Workers of one desk wait one behind another, so that what goes out is in order and its pace exact.
    """

    def __init__(
        self,
        *,
        worker: Worker,
        brakes: Brakes,
        watch: Watch,
        sessions: Sessions,
        refusals: Refusals,
        settle: Callable[[Outcome, Desk], Awaitable[None]],
        others: Callable[[Desk], list[Desk]],
    ) -> None:
        self._worker, self._brakes, self._watch, self._sessions = worker, brakes, watch, sessions
        self._refusals, self._settle, self._others = refusals, settle, others
        self.out = 0
        """Trips that were admitted and have not come back."""
        self.room, self.money, self.canary_back = Bell(), Bell(), Bell()

    def at_once(self, desk: Desk) -> Trip | None:
        """A trip that nothing has to be waited for; None does not say that there is none."""
        lane, backlog = desk.channel.lane, desk.backlog
        if not self._refusals.passed or desk.next_up is not None or lane.ended is not None or not lane.open_now():
            return None
        if self._brakes.draining or self._brakes.held:
            return None
        now = monotonic()
        picked: Item | Trip | None
        if backlog.fresh and not backlog.waits:
            picked = backlog.fresh.popleft()
        elif (picked := self._ready(desk, now)) is None:
            return None
        trip = self._picked(picked, desk)
        prepared = self._worker.prepare(trip, counted=lane.counts_tokens) is None
        if prepared and self._worker.budget.fits(trip.reserved) and lane.admit_now(trip.reserved.tokens):
            self._worker.budget.reserve(trip.reserved)
            self.out += 1
            lane.took(retry=trip.retry)
            return trip
        backlog.later(trip, now)
        return None

    async def next(self, desk: Desk) -> Trip | None:
        """The next trip to send, reserved for and admitted by its lane; None when there will be none."""
        while True:
            async with desk.turnstile:
                trip = await self._pick(desk)
                if trip is None:
                    return None
                outcome = self._worker.prepare(trip, counted=desk.channel.lane.counts_tokens)
                if outcome is None:
                    desk.next_up = trip
                    try:
                        if await self._goes(trip, desk):
                            return trip
                    finally:
                        desk.next_up = None
            # Not while others wait for their turn: being written takes its time.
            if outcome is not None:
                await self._settle(outcome, desk)

    async def _goes(self, trip: Trip, desk: Desk) -> bool:
        """Whether the prepared trip is to be sent now. If not, it waits, or the run drains."""
        if await self._admitted(trip, desk):
            return True
        if self._brakes.draining:
            self._watch.left(possibly_billed=trip.possibly_billed)
        else:
            # This lane pauses or has ended; another key may serve the item.
            desk.backlog.later(trip, monotonic())
        return False

    def came_back(self) -> None:
        """A trip is over: wake whoever waits for what it has given back."""
        self.out -= 1
        if not self._refusals.passed:
            self.canary_back.ring()
        if self._worker.budget.capped:
            self.money.ring()

    def wake(self) -> None:
        """The run drains: nobody waits any more."""
        for bell in (self.room, self.money, self.canary_back):
            bell.ring()

    async def _pick(self, desk: Desk) -> Trip | None:
        backlog, lane = desk.backlog, desk.channel.lane
        while not self._brakes.draining and lane.ended is None and desk.workers <= lane.slots:
            now = monotonic()
            if backlog.spent:
                return None
            if self._brakes.held:
                await backlog.bell.wait()
            elif (paused_s := lane.paused_s()) > 0:
                await backlog.bell.wait(paused_s)
            elif not self._refusals.passed and self.out >= CANARY:
                await self.canary_back.wait()
            elif (picked := self._ready(desk, now)) is not None:
                return self._picked(picked, desk)
            else:
                idle_s = backlog.idle_s(now, retry_wait_s=lane.retry_wait_s, healthy=lane.healthy)
                await backlog.bell.wait(idle_s)
        return None

    def _ready(self, desk: Desk, now: float) -> Item | Trip | None:
        lane = desk.channel.lane
        return desk.backlog.ready(now, slots=lane.slots, may_retry=lane.may_retry, healthy=lane.healthy)

    def _picked(self, picked: Item | Trip, desk: Desk) -> Trip:
        if isinstance(picked, Trip):
            self.room.ring()
            return picked
        # The feed is woken for many items at a time.
        if desk.backlog.low:
            self.room.ring()
        trip = self._worker.start(picked)
        trip.session_fault = self._sessions.fault(picked)
        return trip

    async def _admitted(self, trip: Trip, desk: Desk) -> bool:
        assert trip.request is not None
        if not await self._affordable(trip):
            return False
        self.out += 1
        lane = desk.channel.lane
        if not self._brakes.draining and lane.ended is None:
            with CancelScope() as desk.gate:
                alone = not self._others(desk)
                try:
                    await lane.admit(trip.reserved.tokens, rests=alone)
                except StoreError as error:
                    # What shares the allowance has failed: what is in flight is finished first.
                    self._brakes.drain(error)
                if alone:
                    await lane.rest()
                if lane.ended is None and not lane.paused_s() and not (self._brakes.held or self._brakes.draining):
                    lane.took(retry=trip.retry)
                    return True
        self.out -= 1
        self.canary_back.ring()
        self.money.ring()
        self._worker.budget.settle(trip.reserved, cost_usd=0.0, tokens=0)
        return False

    async def _affordable(self, trip: Trip) -> bool:
        budget = self._worker.budget
        while not budget.fits(trip.reserved):
            if self._brakes.draining:
                return False
            if budget.idle:
                spent = budget.describe()
                self._brakes.drain(BudgetReached(f"the next request does not fit the budget: spent {spent}"))
                return False
            await self.money.wait()
        budget.reserve(trip.reserved)
        return True
