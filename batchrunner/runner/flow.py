"""From a feed to recorded outcomes: three kinds of waiting, one loop per slot."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import anyio.abc
from anyio import create_task_group

from batchrunner.errors import BatchrunnerError, RunError
from batchrunner.limits.breaker import CANARY
from batchrunner.records import Outcome
from batchrunner.runner.admission import Admission
from batchrunner.runner.queues import READ_AHEAD, Backlog, Bell, Desk
from batchrunner.runner.recording import Recorder
from batchrunner.runner.sessions import Sessions
from batchrunner.worker import Answered, Later, Trip, Unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from batchrunner.records import Item
    from batchrunner.runner.brakes import Brakes
    from batchrunner.runner.ports import Feed, Watch
    from batchrunner.stack import Channel
    from batchrunner.worker import Worker


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
        self.worker, self.watch, self.brakes = worker, watch, brakes
        self.sessions = sessions or Sessions(lambda item: None, {})
        self.desks: list[Desk] = []
        self.in_flight: dict[str, Trip] = {}
        self.most_in_flight = 0
        """More than this were never in flight. `outgrown` rings when it rises."""
        self.outgrown = Bell()
        self._route, self._open_channels = route, open_channels
        self._backlogs: dict[str, Backlog] = {}
        self.recorder = Recorder(record, watch, brakes)
        self._refusals = self.recorder.refusals
        self._admission = Admission(
            worker=worker,
            brakes=brakes,
            watch=watch,
            sessions=self.sessions,
            refusals=self._refusals,
            settle=self._settle,
            others=self._others,
        )
        self._room = self._admission.room
        self._workers = 0
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
        await self.recorder.close()
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
            if not backlog.full:
                backlog.add(item)
                return
            if any(not other.full for other in self._backlogs.values() if not other.closed):
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
        full = [backlog for backlog in self._backlogs.values() if not backlog.low]
        while not self.brakes.draining and (
            self.sessions.crowded or (full and not any(backlog.low for backlog in full))
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
        backlog, slots = desk.backlog, desk.channel.lane.slots
        backlog.most_fresh = max(READ_AHEAD, slots)
        todo = len(backlog.fresh) + backlog.waits
        for _ in range(desk.workers, min(slots, desk.workers + todo)):
            desk.workers += 1
            self._workers += 1
            self._foresee()
            self._group.start_soon(self._work, desk)

    async def _work(self, desk: Desk) -> None:
        lane, admission = desk.channel.lane, self._admission
        try:
            wanted = desk.workers <= lane.slots
            while wanted and (trip := admission.at_once(desk) or await admission.next(desk)):
                wanted = await self._advance(trip, desk)
        finally:
            desk.workers -= 1
            self._workers -= 1

    def _foresee(self) -> None:
        if self._workers > self.most_in_flight:
            self.most_in_flight = max(self._workers, self.slots_soon)
            self.outgrown.ring()

    async def _advance(self, trip: Trip, desk: Desk) -> bool:
        """Take a trip one attempt further. Whether the worker that did is still wanted."""
        item_id, attempts = trip.item.item_id, trip.attempts
        self.in_flight[item_id] = trip
        step = await self.worker.attempt(trip, desk.channel)
        if trip.attempts > attempts:
            self.watch.tried()
        try:
            if isinstance(step, Outcome):
                await self._settle(step, desk)
            elif isinstance(step, Answered):
                await self._keep_turn(step.turn)
        finally:
            # An answer is written, however the run ends, and is nothing that was given up.
            del self.in_flight[item_id]
        if isinstance(step, Later):
            now = monotonic()
            desk.backlog.later(trip, now + step.wait_s, soonest=now + step.least_s)
        elif isinstance(step, Answered):
            desk.backlog.later(trip, monotonic())
        elif isinstance(step, Unfinished):
            self._unfinished(trip, step, desk)
        self._admission.came_back()
        lane = desk.channel.lane
        if lane.ended is not None:
            self._end_lane(desk, lane.ended)
        slots = lane.slots
        if desk.workers < slots:
            self._staff(desk)
        return desk.workers <= slots

    # Outcomes

    async def _settle(self, outcome: Outcome, desk: Desk) -> None:
        if self._refusals.passed:
            await self.recorder.write(outcome)
        else:
            await self.recorder.settle(outcome, desk.channel.label)
        # Only now: a full disk is known before there are many in flight.
        if outcome.status == "succeeded" and not self._refusals.passed:
            await self._pass_canary()
        if self.sessions.under_way:
            self._let_next_go(outcome)

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
        await self.recorder.write(turn)
        if not self._refusals.passed:
            await self._pass_canary()

    async def _pass_canary(self) -> None:
        held = self._refusals.release()
        self._admission.canary_back.ring()
        for desk in self.desks:
            desk.channel.lane.canary = None
            self._staff(desk)
        for outcome in held:
            await self.recorder.write(outcome)

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
        self._admission.wake()
