"""The run directory in the hands of its owner."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from batchrunner.errors import StoreError
from batchrunner.records import fact
from batchrunner.store import chain, commits, files, parts
from batchrunner.store.framing import End
from batchrunner.store.journal import Journal, SegmentFiles
from batchrunner.store.ledger import Ledger, code_of
from batchrunner.store.spending import Totals, totals
from batchrunner.store.view import CARRIED, View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa

    from batchrunner.records import Outcome
    from batchrunner.store.chain import Closed, Survey
    from batchrunner.store.commits import Commit, Part
    from batchrunner.store.lock import Lock
    from batchrunner.store.mirror import Mirror

SEAL_OUTCOMES = 10_000
SEAL_BYTES = 6 * 2**20
"""A journal segment this long becomes a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What an earlier life left behind: outcomes that are in a part now, and torn bytes that were cut."""

    outcomes: int = 0
    torn_bytes: int = 0
    lost: tuple[str, ...] = ()
    """What `salvage` could not read, a sentence each."""
    notes: tuple[str, ...] = ()
    """What else a person should know, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The pair of input and job that rows are positions in; the mappings are the caller's own."""

    input: Mapping[str, Any]
    asked: Mapping[str, Any]
    rows: int


@fact(frozen=True, slots=True, kw_only=True)
class Entry:
    """An outcome ready to be written."""

    payload: bytes
    row: int
    code: int


def entry(outcome: Outcome) -> Entry:
    """Make an outcome ready to be written."""
    code = code_of(outcome.status, outcome.error_type, outcome.attempts)
    return Entry(payload=parts.encode(outcome), row=outcome.row, code=code)


class Run:
    """One run, held by its lock. Made by `opening.open_run`.

    `begin` comes first, `finish` last; then nothing is written any more. One thread writes (`append`,
    `write`, `sync`, `rotate`), and one may `fold` meanwhile. Every refusal of the disk is a StoreError.
    """

    def __init__(
        self, directory: Path, *, lock: Lock, commit: Commit, mode: int, survey: Survey, mirror: Mirror | None = None
    ) -> None:
        self.directory, self.commit, self.mode, self.mirror = directory, commit, mode, mirror
        self.flush_every_s: float | None = None
        """A journal segment so old becomes a part, however short it is."""
        self.segments = SegmentFiles(directory / "journal", commit.run_id)
        self.ledger = Ledger(0)
        """The best outcome of each row; filled by `begin`."""
        self.recovered = Recovered(outcomes=sum(one.outcomes for one in survey.closed), torn_bytes=survey.torn_bytes)
        self._lock: Lock | None = lock
        self._journal: Journal | None = None
        self._closed: deque[Closed] = deque(survey.closed)
        self._uncommitted: Part | None = None
        """A part that is whole, but whose commit failed: the next try names this one."""
        folded = End(segment=commit.folded_segment, sequence=commit.folded_through, length=0)
        self._tail = max(survey.tail, folded, key=lambda end: end.sequence)
        self._number = max(commit.folded_segment, *self.segments.numbers(), 0)
        self._opening: View | None = None
        """What was in parts when the run began: its ledger takes a while to make."""
        self._making_room = threading.Lock()
        self._filling_since = 0.0
        self._pushed: Commit | None = None
        self._ended = False

    @property
    def run_id(self) -> str:
        return self.commit.run_id

    @property
    def place(self) -> str:
        """The run's name for people: its directory, or its address."""
        return self.mirror.address if self.mirror else str(self.directory)

    @property
    def recorded(self) -> int:
        """The number of the last outcome written."""
        return self._journal.sequence if self._journal else self.commit.folded_through

    @property
    def ripe(self) -> bool:
        """Whether the journal has grown enough for a part."""
        journal = self._open_journal
        return journal.outcomes >= SEAL_OUTCOMES or journal.size_bytes >= SEAL_BYTES or self.ripe_in_s() <= 0

    def ripe_in_s(self) -> float:
        """Seconds until what has been recorded becomes a part whatever comes; infinite where it waits for more."""
        if self.flush_every_s is None or not self._open_journal.outcomes:
            return math.inf
        return self._filling_since + self.flush_every_s - time.monotonic()

    def check(self) -> None:
        """Raises RunLocked or StoreError when a run on an object store is not certainly ours any more."""
        if self.mirror:
            self.mirror.check()

    @property
    def unsynced(self) -> int:
        """How many outcomes a power cut would take."""
        return self._journal.unsynced if self._journal else 0

    @property
    def unsynced_bytes(self) -> int:
        return self._journal.unsynced_bytes if self._journal else 0

    @property
    def trouble(self) -> StoreError | None:
        """Why to end soon, although everything could be written so far: a full disk, or a second failure."""
        failures = self._journal.failures if self._journal else []
        serious = failures[1:] or [error for error in failures if error.errno in files.FULL]
        return files.refusal(serious[0], self.directory) if serious else None

    def regain_room(self) -> bool:
        """After a full disk: whether there is plenty of room again, and the reserve is set aside anew."""
        # A part takes less than its segments do; without room for it, it would be tried again and again.
        return self._open_journal.regain_room(sum(closed.end.length for closed in list(self._closed)))

    def view(self) -> View:
        """What is in parts, as of now."""
        return View(self.directory, self.commit)

    def spent(self) -> Totals:
        """Totals over the whole life of the run, of what is in parts."""
        view, self._opening = self._opening, None
        unchanged = view is not None and view.commit is self.commit and self.recorded == self.commit.folded_through
        return totals(view if view is not None and unchanged else self.view())

    def begin(self, epoch: Epoch | None = None, *, carried: pa.Table | None = None) -> None:
        """Take up the current epoch, or begin a new one, and open the journal.

        `carried` are the outcomes that go on counting, by row of the new input, as `matching.match` gives them.
        """
        with files.preparing(self.directory):
            if epoch is not None:
                self._commit_epoch(epoch, carried)
            self._opening = self.view()
            self.ledger = self._opening.ledger
            self._number += 1
            self._journal = Journal(
                self.segments,
                epoch=self.commit.epoch,
                before=self._tail,
                number=self._number,
                closed=self._closed,
                making_room=self._making_room,
            )
        self._push()

    def append(self, outcome: Outcome) -> int:
        """Write one outcome; give its number. A kill does not take it any more, a power cut may."""
        return self.write([entry(outcome)])

    def write(self, entries: Sequence[Entry], *, again: bool = False, expected: int = 0) -> int:
        """Write outcomes, each whole or not at all, in one call to the system; give the last one's number.

        After a StoreError that says `full` they are owed: the same call `again` writes them once there is room.
        When there is no room for as many more as are `expected`, that is `trouble`.
        """
        payloads = [] if again else [one.payload for one in entries]
        if self.flush_every_s is not None and not self._open_journal.outcomes:
            self._filling_since = time.monotonic()
        with files.storing(self.directory):
            last = self._open_journal.append(payloads, expected=expected)
        for sequence, one in enumerate(entries, last - len(entries) + 1):
            self.ledger.note(one.row, sequence, one.code)
        return last

    def sync(self) -> None:
        """Return once a power cut takes nothing any more."""
        with files.storing(self.directory):
            self._open_journal.sync()

    def rotate(self) -> None:
        """Close the journal's segment, so that `fold` can make a part of it, and go on in a new one."""
        with files.storing(self.directory):
            self._open_journal.rotate()

    def fold(self) -> None:
        """Make parts of the closed segments, and a commit for each, then drop them."""
        with files.storing(self.directory):
            while self._closed:
                self._fold_group(_next_group(self._closed))
        self._push()

    def seal(self) -> None:
        """Make a part of everything written so far."""
        self.rotate()
        self.fold()

    def replace_parts(self, replacing: Sequence[Part], *, dropped: Mapping[str, Any]) -> None:
        """Let these parts, all of the current epoch, take the place of all there are."""
        self._publish(parts=tuple(replacing), carried=None, dropped=dropped)
        # No earlier commit names these parts, and damage to a single file must not lose them all.
        self._publish()
        self._push()

    def finish(self) -> None:
        """Make a part of everything, and close the journal for good."""
        journal = self._open_journal
        with files.storing(self.directory):
            if journal.fault is not None:
                raise journal.fault
            journal.close()
            self.fold()
            self.segments.drop(max(self.segments.numbers(), default=0))
        self._ended = True

    def close(self) -> None:
        """Let go of the run. What is in no part yet stays in the journal, for the next start."""
        try:
            if self._journal:
                with files.storing(self.directory):
                    self._journal.close()
        finally:
            if self.mirror:
                self.mirror.close(whole=self._whole)
            if self._lock:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        owing = self._journal is not None and self._journal.full is not None
        try:
            self.close()
        except StoreError:
            # What is owed to a full disk was refused before; whoever was told has the last word.
            if not owing:
                raise

    def _push(self) -> None:
        if self.mirror:
            self.mirror.push(self.commit)
            self._pushed = self.commit

    @property
    def _whole(self) -> bool:
        """Whether an object store has all there is."""
        return self._pushed is self.commit and (self._ended or self._journal is None)

    @property
    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("nothing can be written before `begin`")
        return self._journal

    def _commit_epoch(self, epoch: Epoch, carried: pa.Table | None) -> None:
        number = self.commit.epoch + 1
        name = None
        if carried is not None and carried.num_rows:
            name = f"carried-{number:06d}.parquet"
            parts.write_table(self.directory / "parts" / name, carried.select(CARRIED.names).cast(CARRIED), self.mode)
        self._publish(epoch=number, input=epoch.input, asked=epoch.asked, rows=epoch.rows, carried=name)

    def _fold_group(self, group: Sequence[Closed]) -> None:
        payloads = [payload for closed in group for payload in chain.payloads_of(self.segments, closed)]
        table = parts.to_table(payloads, after=group[0].after, epoch=group[0].epoch)
        end = group[-1].end
        with self._making_room:
            self._leave_room()
            if self._uncommitted is None or self._uncommitted.sequences != (group[0].after + 1, end.sequence):
                self._uncommitted = parts.write(self.directory / "parts", table, self.mode)
            named = (*self.commit.parts, self._uncommitted)
            self._publish(parts=named, folded_through=end.sequence, folded_segment=end.segment)
            self._uncommitted = None
        for _ in group:
            self._closed.popleft()
        self.segments.drop(end.segment)

    def _leave_room(self) -> None:
        """On a full disk the room there is belongs to the answers that are still to come."""
        failures = self._journal.failures if self._journal and self._journal.is_open else []
        for error in failures:
            if error.errno in files.FULL:
                raise error

    def _publish(self, **changes: Any) -> None:
        commit = self.commit.successor(**changes)
        commits.publish(self.directory / "commits", commit, self.mode)
        self.commit = commit


def _next_group(closed: Sequence[Closed]) -> list[Closed]:
    """The segments at the front that make one part: of one epoch, and not more than a part should hold."""
    group, length = [closed[0]], closed[0].end.length
    for one in list(closed)[1:]:
        length += one.end.length
        if one.epoch != group[0].epoch or length > SEAL_BYTES:
            break
        group.append(one)
    return group
