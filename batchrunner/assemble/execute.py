"""A prepared job as a running run: everything wired, watched, and brought to its end."""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio
from anyio import create_task_group, to_thread

from batchrunner import simulator
from batchrunner.assemble.reuse import fanned_out
from batchrunner.errors import BatchrunnerError, DeadlineReached, Interrupted, RunLocked, StoreError
from batchrunner.events import Progress
from batchrunner.retry import Backoff
from batchrunner.runner import Brakes, Runner
from batchrunner.stack import build_stack
from batchrunner.store import Writer
from batchrunner.transport import Clocks, Wire, connections_left
from batchrunner.worker import Settings, Worker

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from anyio.abc import TaskGroup

    from batchrunner.assemble.channels import Channels
    from batchrunner.assemble.feed import InputFeed
    from batchrunner.assemble.prepare import Prepared
    from batchrunner.credentials import Redactor
    from batchrunner.events import Display, Tally
    from batchrunner.limits import Budget, Estimator, Lane
    from batchrunner.providers.base import Provider
    from batchrunner.records import Begun
    from batchrunner.runner import Sessions
    from batchrunner.signals import Signals
    from batchrunner.spec import TimeoutsSpec
    from batchrunner.store import Open, Run
    from batchrunner.telemetry import Attempts, Emit
    from batchrunner.worker import Asks

HEARTBEAT_S = 2.0
SIMULATED_LATENCY_S = 0.4
MOST_LANES, NAMED = 20, 3
"""So many lanes and slow items are told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an invocation runs: nothing of it changes what is bought."""

    grace_s: float = 25.0
    patient: bool = False
    """Ctrl-C waits for those in flight within their own clocks, without the grace."""
    disk_wait_s: float = 60.0
    """How long a full disk is waited for."""
    simulate: bool = False


@dataclass(slots=True, kw_only=True)
class Execution:
    """One invocation while it runs."""

    prepared: Prepared
    run: Run
    feed: InputFeed
    sessions: Sessions
    begun: Mapping[str, Begun]
    followers: Mapping[int, list[Open]]
    """By row: the rows that ask the same, and get its outcome."""
    channels: Channels
    tally: Tally
    manner: Manner
    signals: Signals
    display: Display
    emit: Emit
    redactor: Redactor
    heartbeat: Callable[[Progress, Tally], None]
    """Writes the manifest; called in a thread."""
    budget: Budget
    estimator: Estimator
    attempts: Attempts | None = None
    """Hears of every attempt."""
    resend: Asks | None = None
    sent_changes: str | None = None
    runner: Runner = field(init=False)
    brakes: Brakes = field(init=False)
    hurry: Callable[[], None] = field(init=False, default=lambda: None)
    """Ends the wait for room on a full disk."""

    async def __call__(self) -> BaseException | None:
        """Run to the end. Returns why it ended early, None when every item was given its chance."""
        self.brakes = Brakes()
        try:
            async with AsyncExitStack() as stack:
                # Outermost, so that a second signal while everything closes is heard and kills nothing.
                signalled = stack.enter_context(self._signalled())
                send_to = await stack.enter_async_context(self._address())
                wire = await stack.enter_async_context(self._wire())
                writer = await stack.enter_async_context(self._writer())
                self.hurry = writer.hurry
                self.brakes.on_drain(writer.hurry)
                self.runner = self._runner(wire, writer, send_to)
                group = await stack.enter_async_context(create_task_group())
                group.start_soon(self._obey_signals, signalled)
                group.start_soon(self._keep_deadline)
                group.start_soon(self._show)
                group.start_soon(self._beat)
                await self.runner.run(self.feed)
                group.cancel_scope.cancel()
        except* BatchrunnerError as errors:
            # Whatever else ended the run: that not everything could be written is the word that counts.
            self.brakes.cause = _first(errors)
        return self.brakes.cause

    @asynccontextmanager
    async def _address(self) -> AsyncIterator[str]:
        """Where requests go: the job's base URL, or a simulator of its own."""
        base_url = self.prepared.ready.endpoint.base_url
        if not self.manner.simulate:
            yield base_url
            return
        limits = self.prepared.ready.job.limits
        settings = simulator.Settings(
            latency_s=SIMULATED_LATENCY_S,
            requests_per_minute=self.channels.requests_per_minute(),
            tokens_per_minute=None if isinstance(limits.tokens_per_minute, str) else limits.tokens_per_minute,
        )
        async with simulator.serving(settings) as server:
            yield self.prepared.ready.provider.normalise(server.url)

    def _writer(self) -> Writer:
        def wait(error: BatchrunnerError) -> None:
            self.brakes.hold()
            self.emit("disk_full", error=str(error))
            self.display.say(f"{error}; until there is room nothing is sent, for {self.manner.disk_wait_s:g} s at most")

        def go_on() -> None:
            self.emit("disk_has_room")
            self.display.say("there is room again")
            self.brakes.release()

        return Writer(
            self.run,
            on_trouble=self.brakes.drain,
            on_full=wait,
            on_room=go_on,
            disk_wait_s=self.manner.disk_wait_s,
            expected=lambda: self.runner.slots_soon,
        )

    def _wire(self) -> Wire:
        job = self.prepared.ready.job
        times = job.timeouts
        clocks = Clocks(
            connect_s=times.connect_s,
            first_byte_s=first_byte_s(times, self.prepared.ready.provider),
            idle_s=times.idle_s,
            attempt_s=times.attempt_s,
        )
        ca_file = job.base / job.provider.ca_file if job.provider.ca_file else None
        return Wire(clocks=clocks, ca_file=ca_file, proxy=job.provider.proxy)

    def _runner(self, wire: Wire, writer: Writer, send_to: str) -> Runner:
        ready, job = self.prepared.ready, self.prepared.ready.job
        settings = Settings(
            endpoint=ready.endpoint,
            item_s=job.timeouts.item_s,
            job_agent=_literal(job.request.get("agent_id")),
            job_model=_literal(job.request.get("model")),
            keep_response=job.output.response,
            sent_changes=self.sent_changes,
        )
        worker = Worker(
            provider=ready.provider,
            asks=self.prepared.asker,
            call=build_stack(
                wire, ready.provider, max_wait_s=job.retry.max_wait_s, redact=self.redactor, hears=self.attempts
            ),
            backoff=Backoff(attempts=job.retry.attempts),
            prices=ready.prices,
            estimator=self.estimator,
            budget=self.budget,
            settings=settings,
            resend=self.resend,
            begun=self.begun,
        )
        return Runner(
            worker=worker,
            record=fanned_out(writer.record, self.followers, self.tally.settled),
            route=self.channels.route(),
            open_channels=self.channels.open(
                wire, send_to, self.emit, connections=self._connections(), warn=self.display.say
            ),
            watch=self.tally,
            brakes=self.brakes,
            sessions=self.sessions,
        )

    def _connections(self) -> int:
        """How many there may be; a simulator in this process has the other end of each."""
        left = connections_left()
        return max(1, left // 2) if self.manner.simulate else left

    # Beside the run

    @contextmanager
    def _signalled(self) -> Iterator[anyio.Semaphore]:
        """A semaphore that every signal releases. (anyio's own receiver leaves the signals at their defaults.)"""
        loop, signalled = asyncio.get_running_loop(), anyio.Semaphore(0)

        def hear() -> None:
            signalled.release()
            self.hurry()  # Here, for while everything closes no signal is obeyed any more.

        with self.signals.listening(lambda: loop.call_soon_threadsafe(hear)):
            yield signalled

    async def _obey_signals(self, signalled: anyio.Semaphore) -> None:
        """The first signal drains, the second stops."""
        async with create_task_group() as group:
            for count in itertools.count(1):
                await signalled.acquire()
                number = self.signals.heard[count - 1]
                self.emit("signal_received", signal=number.name, count=count)
                if count == 1:
                    self._drain(number, group)
                else:
                    self.brakes.stop()

    def _drain(self, number: signal.Signals, group: TaskGroup) -> None:
        in_flight, oldest_s = len(self.runner.in_flight), self.oldest_s()
        self.brakes.drain(Interrupted(number))
        patient = self.manner.patient and number.name == "SIGINT"
        if patient and in_flight:
            self.display.say(
                f"Draining {in_flight} in flight (oldest {oldest_s:.0f} s). "
                "Ctrl-C again gives them up; they may be billed."
            )
        elif in_flight:
            self.display.say(f"draining {in_flight} in flight, for {self.manner.grace_s:g} s at most")
        if not patient:
            group.start_soon(self._give_up_after_grace)

    async def _give_up_after_grace(self) -> None:
        await anyio.sleep(self.manner.grace_s)
        self.brakes.stop()

    async def _keep_deadline(self) -> None:
        deadline_s = self.prepared.ready.job.budget.deadline
        if deadline_s is None:
            return
        await anyio.sleep(deadline_s)
        self.brakes.drain(DeadlineReached(f"the deadline of {deadline_s:g} s was reached"))
        await self._give_up_after_grace()

    async def _show(self) -> None:
        while True:
            await to_thread.run_sync(self.display.progress, self.progress(), abandon_on_cancel=True)
            await anyio.sleep(self.display.period_s)

    async def _beat(self) -> None:
        while True:
            progress = self.progress()
            try:
                await to_thread.run_sync(self.heartbeat, progress, self.tally)
            except (StoreError, RunLocked) as error:
                # What comes of a full disk the journal's writer decides; a lack of open files costs a beat.
                if not (getattr(error, "full", False) or _no_file_left(error.__cause__)):
                    self.brakes.drain(error)
            if progress.most_in_flight == self.runner.most_in_flight:
                await self.runner.outgrown.wait(HEARTBEAT_S)

    # What can be seen of it

    def lanes(self) -> list[Lane]:
        return [desk.channel.lane for desk in self.runner.desks] if hasattr(self, "runner") else []

    def given_up(self) -> int:
        """Requests that were in flight when the run stopped: they may be billed."""
        trips = self.runner.in_flight.values() if hasattr(self, "runner") else ()
        return sum(1 + trip.possibly_billed for trip in trips)

    def oldest_s(self) -> float:
        began = [trip.began_at for trip in self.runner.in_flight.values()]
        return monotonic() - min(began) if began else 0.0

    def _oldest(self) -> tuple[dict[str, object], ...]:
        now = monotonic()
        oldest = heapq.nsmallest(NAMED, self.runner.in_flight.values(), key=lambda trip: trip.began_at)
        return tuple(
            {
                "item_id": trip.item.item_id,
                "row": trip.item.row,
                "seconds": round(now - trip.began_at, 1),
                "attempts": trip.attempts,
            }
            for trip in oldest
        )

    def progress(self) -> Progress:
        tally, lanes = self.tally, self.lanes()
        limits = [lane.requests_per_minute for lane in lanes if lane.requests_per_minute]
        paused = [lane for lane in lanes if lane.paused_s() > 1 and not lane.breaker.open]
        notes = [f"paused {lane.paused_s():.0f} s by {lane.name}" for lane in paused[:1]]
        notes += [f"probing, {lane.name}: {lane.trouble}" for lane in lanes if lane.breaker.open][:1]
        notes += [_kept_to(lane) for lane in lanes if lane.throttle.source in ("announced", "learned")][:1]
        held = sum(len(backlog.held) for backlog in self.runner.backlogs)
        notes += [f"{held:,} retries wait: half of all requests are retries already"] if held else []
        return Progress(
            name=self.prepared.ready.job.name,
            done=tally.done,
            total=tally.total,
            succeeded=tally.before.succeeded + tally.now.succeeded,
            failed=tally.failed(),
            failed_by_type={kind: failure.count for kind, failure in tally.failed_by_type().items()},
            per_minute=tally.rate.per_minute(),
            limit_per_minute=sum(limits) if limits else None,
            in_flight=len(self.runner.in_flight),
            most_in_flight=self.runner.most_in_flight,
            slots=sum(lane.slots for lane in lanes),
            oldest_s=self.oldest_s(),
            waiting=sum(backlog.waits for backlog in self.runner.backlogs),
            throttled=sum(lane.throttled_count for lane in lanes),
            tokens=tally.now.prompt_tokens + tally.now.completion_tokens,
            cost_usd=tally.now.cost_usd,
            seconds=tally.seconds,
            left_s=tally.left_s(),
            draining=self.brakes.draining,
            notes=tuple(notes),
            lanes=tuple(lane.facts() for lane in lanes[:MOST_LANES]),
            oldest=self._oldest(),
            slowest=tuple(tally.slowest.facts()),
        )


def _kept_to(lane: Lane) -> str:
    why = "announced by the server" if lane.throttle.source == "announced" else "learned from refusals"
    return f"kept to {lane.requests_per_minute or 0:,.0f} rpm, {why}: {lane.name}"


def _no_file_left(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def first_byte_s(times: TimeoutsSpec, provider: Provider) -> float:
    """The job's word, else the dialect's where its servers may be silent for longer than others."""
    if "first_byte_s" in times.model_fields_set:
        return times.first_byte_s
    return float(getattr(provider, "first_byte_s", times.first_byte_s))


def _literal(value: Any) -> str | None:
    """The job's own agent or model, where it is not a row's."""
    return None if value is None or "{{" in str(value) else str(value)


def _first(group: BaseExceptionGroup[BatchrunnerError]) -> BatchrunnerError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
