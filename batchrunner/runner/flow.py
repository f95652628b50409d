"""From a feed to recorded outcomes: three kinds of waiting, one loop per slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.abc
from anyio import CancelScope, create_task_group

from batchrunner.errors import BatchrunnerError, BudgetReached, RunError, StoreError
from batchrunner.limits.breaker import CANARY, Refusals
from batchrunner.records import Outcome
from batchrunner.runner.queues import Backlog, Bell, Desk
from batchrunner.runner.sessions import Sessions
from batchrunner.worker import Answered, Later, Trip, Unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from batchrunner.records import Item
    from batchrunner.runner.brakes import Brakes
    from batchrunner.runner.ports import Feed, Watch
    from batchrunner.stack import Channel
    from batchrunner.worker import Worker

READ_AHEAD = 256


class Runner:
    """Settles every item of a feed and records every outcome that was paid for.

    `route` names an item's backlog, `open_channels` gives the channels that serve it, one for each key.
    `record` returns once the outcome survives a crash of this process. `sessions` keeps items in order
    that are not to be asked at the same time.
    """

    def __init__(
        self,
        *,
        worker: Worker,
        record: Callable[[Outcome], Awaitable[None]],
        route: Callable[[Item], str],
        open_channels: Callable[[str], list[Channel]],
        watch: Watch,
        brakes: Brakes,
        sessions: Sessions | None = None,
    ) -> None:
        self.worker, self.record, self.watch, self.brakes = worker, record, watch, brakes
        self.sessions = sessions or Sessions(lambda item: None, {})
        self.desks: list[Desk] = []
        self.in_flight: dict[str, Trip] = {}
        self.most_in_flight = 0
        """More than this were never in flight. `outgrown` rings when it rises."""
        self.outgrown = Bell()
        self._route, self._open_channels = route, open_channels
        self._backlogs: dict[str, Backlog] = {}
        self._refusals = Refusals()
        self._room, self._money, self._canary_back = Bell(), Bell(), Bell()
        self._canaries = self._workers = 0
        self._group: anyio.abc.TaskGroup
        brakes.on_drain(self._give_up_waiting)
        brakes.on_release(self._wake_waiting)

    @property
    def slots_soon(self) -> int:
        """How many requests there may be in flight before long."""
        return sum(desk.channel.lane.concurrency.soon for desk in self.desks)

    @property
    def backlogs(self) -> Collection[Backlog]:
        return self._backlogs.values()

    async def run(self, feed: Feed) -> None:
        """Returns when nothing is in flight any more. Why it ended early is in `brakes.cause`."""
        with self.brakes.stopping:
            async with create_task_group() as self._group:
                await self._read(feed)
                while self.sessions.held and not self.brakes.draining:
                    await self._room.wait()
                for backlog in self._backlogs.values():
                    backlog.close()
        self._give_up_waiting()
        await self._settle_refusals()
        self._report_lost_lanes()

    # The feed

    async def _read(self, feed: Feed) -> None:
        while not self.brakes.draining:
            try:
                items = await feed.chunk()
            except BatchrunnerError as error:
                # What is in flight is paid for: it is finished first.
                self.brakes.drain(RunError(f"the input could not be read on: {error}"))
                return
            for item in items:
                await self._queue(item, feed)
            for desk in self.desks:
                self._staff(desk)
            if not items:
                if not feed.rewind():
                    return
                self.sessions.rewind()
                await self._some_room()

    async def _queue(self, item: Item, feed: Feed) -> None:
        arrival = self.sessions.arrive(item)
        if arrival == "later":
            feed.skip(item)
        if arrival != "goes":
            return
        backlog = self._backlog(self._route(item))
        while not backlog.closed:
            if len(backlog.fresh) < READ_AHEAD:
                backlog.add(item)
                return
            if any(len(other.fresh) < READ_AHEAD for other in self._backlogs.values() if not other.closed):
                feed.skip(item)
                self.sessions.leave_out(item)
                return
            for desk in self.desks:
                self._staff(desk)
            await self._room.wait()
        # Closed while the feed still runs: its lanes have ended, and the item stays unfinished.
        self.sessions.lose(item.item_id)

    async def _some_room(self) -> None:
        """Before another pass: until a lane that was full has worked off half of its queue."""
        full = [backlog for backlog in self._backlogs.values() if len(backlog.fresh) > READ_AHEAD // 2]
        while not self.brakes.draining and (
            self.sessions.crowded or (full and all(len(backlog.fresh) > READ_AHEAD // 2 for backlog in full))
        ):
            await self._room.wait()

    def _backlog(self, name: str) -> Backlog:
        backlog = self._backlogs.get(name)
        if backlog is None:
            backlog = self._backlogs[name] = Backlog()
            self.desks += [Desk(channel=channel, backlog=backlog) for channel in self._open_channels(name)]
            for desk in self.desks:
                desk.channel.lane.canary = None if self._refusals.passed else 1 if len(self.desks) > 1 else CANARY
        return backlog

    # The workers

    def _staff(self, desk: Desk) -> None:
        """As many workers as there are slots and work for them."""
        backlog = desk.backlog
        todo = len(backlog.fresh) + backlog.waits
        for _ in range(desk.workers, min(desk.channel.lane.slots, desk.workers + todo)):
            desk.workers += 1
            self._workers += 1
            self._foresee()
            self._group.start_soon(self._work, desk)

    async def _work(self, desk: Desk) -> None:
        try:
            while desk.workers <= desk.channel.lane.slots and (trip := await self._next(desk)):
                await self._advance(trip, desk)
        finally:
            desk.workers -= 1
            self._workers -= 1

    def _foresee(self) -> None:
        if self._workers > self.most_in_flight:
            self.most_in_flight = max(self._workers, self.slots_soon)
            self.outgrown.ring()

    async def _next(self, desk: Desk) -> Trip | None:
        """The next trip to send, reserved for and admitted by its lane; None when there will be none."""
        async with desk.turnstile:
            while (trip := await self._pick(desk)) is not None:
                outcome = self.worker.prepare(trip)
                if outcome is not None:
                    await self._settle(outcome, desk)
                elif await self._admitted(trip, desk):
                    return trip
                elif self.brakes.draining:
                    self.watch.left(possibly_billed=trip.possibly_billed)
                else:
                    # This lane pauses or has ended; another key may serve the item.
                    desk.backlog.later(trip, anyio.current_time())
        return None

    async def _pick(self, desk: Desk) -> Trip | None:
        backlog, lane = desk.backlog, desk.channel.lane
        while not self.brakes.draining and lane.ended is None and desk.workers <= lane.slots:
            now = anyio.current_time()
            if backlog.spent:
                return None
            if self.brakes.held:
                await backlog.bell.wait()
            elif (paused_s := lane.paused_s()) > 0:
                await backlog.bell.wait(paused_s)
            elif not self._refusals.passed and self._canaries >= CANARY:
                await self._canary_back.wait()
            elif (picked := backlog.ready(now, slots=lane.slots, may_retry=lane.may_retry)) is not None:
                self._room.ring()
                return picked if isinstance(picked, Trip) else self._begin(picked)
            else:
                await backlog.bell.wait(backlog.idle_s(now, retry_wait_s=lane.retry_wait_s))
        return None

    def _begin(self, item: Item) -> Trip:
        trip = self.worker.start(item)
        trip.session_fault = self.sessions.fault(item)
        return trip

    async def _admitted(self, trip: Trip, desk: Desk) -> bool:
        assert trip.request is not None
        if not await self._affordable(trip):
            return False
        self._canaries += 1
        lane = desk.channel.lane
        if not self.brakes.draining and lane.ended is None:
            with CancelScope() as desk.gate:
                await lane.admit(trip.reserved.tokens)
                if not self._others(desk):
                    await lane.rest()
                if lane.ended is None and not lane.paused_s() and not self.brakes.held:
                    lane.took(retry=trip.retry)
                    return True
        self._canaries -= 1
        self._canary_back.ring()
        self._money.ring()
        self.worker.budget.settle(trip.reserved, cost_usd=0.0, tokens=0)
        return False

    async def _affordable(self, trip: Trip) -> bool:
        budget = self.worker.budget
        while not budget.fits(trip.reserved):
            if self.brakes.draining:
                return False
            if budget.idle:
                self.brakes.drain(BudgetReached(f"the next request does not fit the budget: spent {budget.describe()}"))
                return False
            await self._money.wait()
        budget.reserve(trip.reserved)
        return True

    async def _advance(self, trip: Trip, desk: Desk) -> None:
        self.in_flight[trip.item.item_id] = trip
        attempts = trip.attempts
        step = await self.worker.attempt(trip, desk.channel)
        if trip.attempts > attempts:
            self.watch.tried()
        if isinstance(step, Outcome | Answered):
            # The provider has billed this: losing it would bill it again on resume.
            with CancelScope(shield=True):
                await (self._settle(step, desk) if isinstance(step, Outcome) else self._keep_turn(step.turn))
        del self.in_flight[trip.item.item_id]
        self._canaries -= 1
        if isinstance(step, Later):
            desk.backlog.later(trip, anyio.current_time() + step.wait_s)
        elif isinstance(step, Answered):
            desk.backlog.later(trip, anyio.current_time())
        elif isinstance(step, Unfinished):
            self._unfinished(trip, step, desk)
        self._after(desk)

    def _after(self, desk: Desk) -> None:
        """Wake whoever waits for what an attempt has just given back."""
        lane = desk.channel.lane
        if not self._refusals.passed:
            self._canary_back.ring()
        if self.worker.budget.capped:
            self._money.ring()
        if lane.ended is not None:
            self._end_lane(desk, lane.ended)
        if desk.workers < lane.slots:
            self._staff(desk)

    # Outcomes

    async def _settle(self, outcome: Outcome, desk: Desk) -> None:
        if not self._held_back(outcome, desk):
            await self._write(outcome)
        # Only now: a full disk is known before there are many in flight.
        if outcome.status == "succeeded" and not self._refusals.passed:
            await self._pass_canary()
        self._let_next_go(outcome)

    def _held_back(self, outcome: Outcome, desk: Desk) -> bool:
        """Whether a refusal may yet turn out to be the whole run's."""
        if outcome.status != "rejected" or not self._refusals.counts(outcome.error_type):
            return False
        held = self._refusals.hold(outcome)
        end = self._refusals.judge(outcome, desk.channel.label)
        if end is not None:
            self.brakes.drain(end)
        return held or end is not None

    def _let_next_go(self, outcome: Outcome) -> None:
        """The item that waited behind this one in its session."""
        item = self.sessions.settled(outcome.item_id, outcome.row, succeeded=outcome.status == "succeeded")
        if item is None:
            return
        backlog = self._backlog(self._route(item))
        if backlog.closed:
            self.sessions.lose(item.item_id)
        else:
            backlog.add_first(item)
            for desk in self.desks:
                if desk.backlog is backlog:
                    self._staff(desk)
        self._room.ring()

    async def _keep_turn(self, turn: Outcome) -> None:
        await self._write(turn)
        if not self._refusals.passed:
            await self._pass_canary()

    async def _write(self, outcome: Outcome) -> None:
        try:
            await self.record(outcome)
        except StoreError as error:
            self.brakes.drain(error)
            # What was answered is billed, and no record says so.
            self.watch.left(possibly_billed=outcome.possibly_billed + (outcome.attempts > 0))
            return
        if outcome.status == "unfinished":
            self.watch.answered(outcome)
        else:
            self.watch.settled(outcome)

    async def _pass_canary(self) -> None:
        held = self._refusals.release()
        self._canary_back.ring()
        for desk in self.desks:
            desk.channel.lane.canary = None
            self._staff(desk)
        for outcome in held:
            await self._write(outcome)

    async def _settle_refusals(self) -> None:
        """Refusals that showed no pattern are their items' own; those that ended the run are nobody's."""
        for outcome in self._refusals.release():
            if self.brakes.cause is None:
                await self._write(outcome)
            else:
                self.watch.left(possibly_billed=outcome.possibly_billed)

    # Ends

    def _unfinished(self, trip: Trip, step: Unfinished, desk: Desk) -> None:
        self.watch.left(possibly_billed=trip.possibly_billed)
        self.sessions.lose(trip.item.item_id)
        if not step.lane_only:
            self.brakes.drain(step.ends)
            return
        desk.channel.lane.ended = desk.channel.lane.ended or step.ends

    def _end_lane(self, desk: Desk, error: BatchrunnerError) -> None:
        """No request goes out here any more; when that was the backlog's last lane, its items stay unfinished."""
        others = self._others(desk)
        if desk.gate is not None:
            desk.gate.cancel()
        desk.backlog.bell.ring()
        for other in others:
            self._staff(other)
        if not others and not desk.backlog.closed:
            self._abandon(desk.backlog)
        if all(d.channel.lane.ended is not None for d in self.desks):
            self.brakes.drain(error)
        self._room.ring()

    def _others(self, desk: Desk) -> list[Desk]:
        """The live desks that serve the same backlog with other keys."""
        same = [other for other in self.desks if other.backlog is desk.backlog and other is not desk]
        return [other for other in same if other.channel.lane.ended is None]

    def _report_lost_lanes(self) -> None:
        lost = [desk.channel.lane.ended for desk in self.desks if desk.channel.lane.ended is not None]
        if lost:
            self.brakes.drain(lost[0])

    def _abandon(self, backlog: Backlog) -> None:
        for left in backlog.abandon():
            if isinstance(left, Trip):
                self.watch.left(possibly_billed=left.possibly_billed)
            self.sessions.lose(left.item.item_id if isinstance(left, Trip) else left.item_id)

    def _wake_waiting(self) -> None:
        for backlog in self._backlogs.values():
            backlog.bell.ring()

    def _give_up_waiting(self) -> None:
        for backlog in self._backlogs.values():
            self._abandon(backlog)
        for desk in self.desks:
            if desk.gate is not None:
                desk.gate.cancel()
        for bell in (self._room, self._money, self._canary_back):
            bell.ring()
