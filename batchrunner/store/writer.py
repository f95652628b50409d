"""The way from many workers to the journal: one thread writes, another makes parts."""

from __future__ import annotations

import asyncio
import math
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Self

import anyio
from anyio import CancelScope, CapacityLimiter, create_task_group, from_thread, to_thread

from batchrunner.errors import BatchrunnerError, StoreError
from batchrunner.store.patience import POLL_S, Patience
from batchrunner.store.run import entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from batchrunner.records import Outcome
    from batchrunner.store.run import Entry, Run

HELD_BYTES = 64 * 2**20
"""What may wait in memory to be written; when it is full, `record` waits before it takes more."""
SYNC_S = 0.05
SYNC_OUTCOMES = 100
SYNC_BYTES = 8 * 2**20
"""What a power cut may take: the outcomes of so long, so many, or so much, whichever is least."""


GATHER_S = 0.002
"""How long outcomes are gathered, to be written together: a write, and waking its thread, cost as much for many."""


class _Batch:
    """Outcomes that are written together; whoever recorded one of them waits for it to land."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.ready = self.last = self.landed = False
        self.fault: BatchrunnerError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def add(self, one: Entry) -> None:
        self.entries.append(one)
        self.size_bytes += len(one.payload)

    async def wait(self) -> None:
        """Return once the batch has landed; a bare future, for an event costs each outcome several times as much."""
        if not self.landed:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def land(self) -> None:
        self.landed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Writer:
    """Records outcomes in a run that has begun, from any number of tasks; ends by finishing the run.

    On the way out everything is synced and made a part. A disk that refuses is a StoreError from
    `record`, from then on, and from the way out. `on_trouble` is called, in the event loop, as soon as
    it is better to send no more: what is in flight may still be recorded, as long as that works. A full disk
    is waited for, `disk_wait_s` long, before it is trouble; `on_full` and `on_room` are called, in the event
    loop, when that begins and when it ends well. `expected` says how many outcomes may be on their way; called
    in a thread. Room is kept for them.
    """

    def __init__(
        self,
        run: Run,
        *,
        on_trouble: Callable[[BatchrunnerError], None] = lambda _: None,
        on_full: Callable[[BatchrunnerError], None] = lambda _: None,
        on_room: Callable[[], None] = lambda: None,
        disk_wait_s: float = 0.0,
        expected: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._on_trouble, self._expected, self._clock = run, on_trouble, expected, clock
        self._on_full, self._on_room = on_full, on_room
        self._patience = Patience(disk_wait_s, clock)
        self._unfolded: BatchrunnerError | None = None
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._ripe: SimpleQueue[bool] = SimpleQueue()
        self._held_bytes = 0
        self._sync_at: float | None = None
        self._fault: BatchrunnerError | None = None
        self._told = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._open, self._written = _Batch(self._loop), _Batch(self._loop)
        self._busy = self._closed = False
        self._threads_left = 2
        self._ended = anyio.Event()
        self._group = create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._in_thread, self._write_batches)
        self._group.start_soon(self._in_thread, self._make_parts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Everything recorded was paid for: whoever cancels waits until it is safe.
        with CancelScope(shield=True):
            self._close()
            await self._ended.wait()
            if self._fault is None:
                await to_thread.run_sync(self._finish)
        await self._group.__aexit__(None, None, None)
        if error is None and self._fault is not None:
            raise self._fault

    async def record(self, outcome: Outcome) -> None:
        """Return once the outcome has been written: a kill does not take it any more.

        Being cancelled takes effect after that only: who is cancelled here knows that it has been written. Raises
        StoreError when it cannot be.
        """
        one = entry(outcome)
        if self._crowded(one):
            await self._wait_for_room(one)
        batch = self._add(one)
        try:
            await batch.wait()
        except asyncio.CancelledError:
            # It is written all the same, and whoever cancels is heard after that.
            with CancelScope(shield=True):
                await batch.wait()
            if batch.fault is None:
                raise
        if batch.fault is not None:
            raise StoreError(str(batch.fault)) from batch.fault

    @property
    def held_bytes(self) -> int:
        """How much waits in memory to be written."""
        return self._held_bytes

    def hurry(self) -> None:
        """Wait for room no longer."""
        self._patience.hurry()

    # In the event loop.

    def _crowded(self, one: Entry) -> bool:
        return self._held_bytes > 0 and self._held_bytes + len(one.payload) > HELD_BYTES and not self._closed

    async def _wait_for_room(self, one: Entry) -> None:
        # The tokens are spent: being cancelled here must not lose what they bought.
        with CancelScope(shield=True):
            while self._crowded(one):
                if not self._busy:
                    self._hand_over()
                await self._written.wait()

    def _add(self, one: Entry) -> _Batch:
        if self._closed:
            raise RuntimeError("nothing can be recorded once the writer has closed")
        batch = self._open
        batch.add(one)
        self._held_bytes += len(one.payload)
        if len(batch.entries) == 1:
            self._loop.call_later(GATHER_S, self._ready, batch)
        return batch

    def _ready(self, batch: _Batch) -> None:
        batch.ready = True
        if batch is self._open and not self._busy:
            self._hand_over()

    def _hand_over(self) -> None:
        self._written, self._open, self._busy = self._open, _Batch(self._loop), True
        self._batches.put(self._written)

    def _landed(self, batch: _Batch) -> None:
        self._busy = False
        self._held_bytes -= batch.size_bytes
        batch.land()
        if self._open.ready:
            self._hand_over()

    def _tell(self, trouble: BatchrunnerError) -> None:
        if not self._told:
            self._told = True
            self._on_trouble(trouble)

    def _close(self) -> None:
        self._closed = self._open.last = True
        self._hand_over()
        self._ripe.put(False)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        try:
            await to_thread.run_sync(work, limiter=CapacityLimiter(1))
        finally:
            self._threads_left -= 1
            if not self._threads_left:
                self._ended.set()
            if not self._closed:
                self._give_up()

    def _give_up(self) -> None:
        """After a bug in a thread: nobody waits for it for ever."""
        self._fault = StoreError("a thread of the journal's writer failed")
        for batch in (self._written, self._open):
            batch.fault = self._fault
            batch.land()
        self._close()

    # In the writing thread.

    def _write_batches(self) -> None:
        last = False
        while not last:
            batch = self._next_batch()
            if batch is not None:
                self._write(batch)
                last = batch.last
            self._keep_up()

    def _next_batch(self) -> _Batch | None:
        """The next batch, None when it is time to sync."""
        wait_s = None if self._sync_at is None else max(0.0, self._sync_at - self._clock())
        if self._patience.tried and not self._told:
            wait_s = POLL_S if wait_s is None else min(wait_s, POLL_S)
        if (ripe_in_s := self._run.ripe_in_s()) < math.inf and self._fault is None:
            wait_s = max(0.0, ripe_in_s if wait_s is None else min(wait_s, ripe_in_s))
        try:
            return self._batches.get(timeout=wait_s)
        except Empty:
            return None

    def _write(self, batch: _Batch) -> None:
        if not batch.entries:
            return
        try:
            self._patiently(lambda again: self._run.write(batch.entries, again=again, expected=self._expected()))
        except BatchrunnerError as error:
            batch.fault = self._fault = error
        # Before anyone who waits for this batch sends more.
        self._look_for_room()
        self._loop.call_soon_threadsafe(self._landed, batch)

    def _patiently(self, work: Callable[[bool], object]) -> None:
        """Do `work`, and again while the disk is full and there is patience."""
        again = False
        while True:
            try:
                work(again)
            except BatchrunnerError as error:
                if not self._waits_for_room(error):
                    raise
                again = True
            else:
                return

    def _waits_for_room(self, error: BatchrunnerError) -> bool:
        known = self._patience.tried
        if not self._patience.lasts(error):
            return False
        if not known:
            from_thread.run_sync(self._on_full, error)
        self._patience.rest()
        return True

    def _keep_up(self) -> None:
        """Sync and rotate when it is time to, and say so when there is trouble."""
        try:
            if self._fault is None:
                self._sync_when_due()
            if self._fault is None and self._run.ripe:
                self._patiently(lambda _: self._run.rotate())
                self._ripe.put(True)
        except BatchrunnerError as error:
            self._fault = error
        if self._fault is not None:
            self._sync_at = None
        self._look_for_room()

    def _look_for_room(self) -> None:
        """With trouble that was survived so far: go on once there is room, end when patience does."""
        trouble, known = self._fault or self._run.trouble or self._unfolded, self._patience.tried
        if trouble is not None and (self._fault is not None or not self._patience.lasts(trouble)):
            self._report(trouble)
        elif trouble is not None and not self._has_room():
            if not known:
                from_thread.run_sync(self._on_full, trouble)
        elif self._patience.tried and not self._told:
            self._patience.restore()
            if known:
                from_thread.run_sync(self._on_room)

    def _has_room(self) -> bool:
        """Whether all can be written again: where a part could not be made, once it has been."""
        if not self._run.regain_room():
            return False
        if self._unfolded is not None and self._ripe.empty():
            self._ripe.put(True)
        return self._unfolded is None

    def _sync_when_due(self) -> None:
        run, now = self._run, self._clock()
        if not run.unsynced:
            self._sync_at = None
            return
        if self._sync_at is None:
            self._sync_at = now + SYNC_S
        if now >= self._sync_at or run.unsynced >= SYNC_OUTCOMES or run.unsynced_bytes >= SYNC_BYTES:
            self._sync_at = None
            self._patiently(lambda _: run.sync())

    def _report(self, trouble: BatchrunnerError | None) -> None:
        if trouble is not None and not self._told:
            from_thread.run_sync(self._tell, trouble)

    # In the thread that makes parts.

    def _make_parts(self) -> None:
        while self._ripe.get():
            try:
                self._run.fold()
            except BatchrunnerError as error:
                # Nothing is lost: the journal keeps what is in no part, and the way out tries again.
                self._unfolded = error
                self._batches.put(_Batch(self._loop))  # The writing thread looks after the rest.
                self._patience.rest()
            else:
                self._unfolded = None

    def _finish(self) -> None:
        try:
            self._patiently(lambda _: self._run.finish())
        except BatchrunnerError as error:
            self._fault = error
