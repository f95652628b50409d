"""Answers that need not be bought: those of earlier runs, and of rows that ask the same."""

from __future__ import annotations

import glob
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.errors import JobError, RunError
from batchrunner.records import Completion
from batchrunner.store import (
    Open,
    Wanted,
    copies,
    copy_for,
    count_copies,
    entry,
    read_manifest,
    shard_folders,
    view_run,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from batchrunner.assemble.invocation import Invocation
    from batchrunner.assemble.prepare import Prepared
    from batchrunner.assemble.selection import Selection
    from batchrunner.records import Outcome
    from batchrunner.store import Run, View
    from batchrunner.worker import Asks

REUSED, DUPLICATE = "reused", "duplicate"
SETTLED, ANSWERED = ("succeeded", "rejected"), ("succeeded",)
WRITTEN_AT_ONCE = 256
_SET_ASIDE = re.compile(r"(.*)\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """What an invocation did not have to buy."""

    reused: int = 0
    duplicates: int = 0
    """Copies of what this run had settled before."""
    followers: Mapping[int, list[Open]] = field(default_factory=dict)
    """By the row that is sent: the rows that ask the same."""
    notes: tuple[str, ...] = ()

    def waiting(self) -> Iterator[Open]:
        """The rows that are not sent themselves."""
        for items in self.followers.values():
            yield from items

    def free(self) -> dict[str, int]:
        """How many items cost nothing, by why."""
        found = {"reused": self.reused, "duplicates": self.duplicates + sum(1 for _ in self.waiting())}
        return {name: count for name, count in found.items() if count}

    def lines(self) -> Iterator[str]:
        """What a person should know."""
        yield from self.notes
        if self.reused:
            yield f"{self.reused:,} answers of earlier runs are taken over, at no cost"
        if duplicates := self.free().get("duplicates"):
            yield f"{duplicates:,} items ask what another one asks, and get its answer"


def take_over(run: Run, prepared: Prepared, selection: Selection, *, simulate: bool) -> TakenOver:
    """Record what the job's `[reuse]` allows to be taken over. Raises JobError, StoreError."""
    spec = prepared.ready.job.reuse
    if not (spec.sources or spec.dedupe):
        return TakenOver()
    wanted = _wanted(prepared, selection, run.ledger.settled_mask())
    counts, notes = {REUSED: 0, DUPLICATE: 0}, [*_without_runs(prepared)]
    if spec.dedupe:
        counts[DUPLICATE] = record_all(run, copies(run.view(), wanted, origin=DUPLICATE, statuses=SETTLED))
    for directory in earlier_runs(prepared, apart=run.directory, simulate=simulate):
        try:
            view = view_run(directory)
            counts[REUSED] += record_all(run, _reusable(view, wanted, prepared))
        except RunError as error:
            notes.append(f"nothing more is taken over from {directory}: {error}")
    if any(counts.values()):
        run.seal()
    return TakenOver(
        reused=counts[REUSED],
        duplicates=counts[DUPLICATE],
        followers=wanted.followers() if spec.dedupe else {},
        notes=tuple(notes),
    )


def foreseen(
    view: View | None, prepared: Prepared, selection: Selection, skip: bytes, invocation: Invocation
) -> TakenOver:
    """What `take_over` would take over of the rows that are not skipped; nothing is recorded."""
    spec = prepared.ready.job.reuse
    if not (spec.sources or spec.dedupe):
        return TakenOver()
    wanted = _wanted(prepared, selection, skip)
    duplicates = count_copies(view, wanted, statuses=SETTLED) if spec.dedupe and view is not None else 0
    runs = earlier_runs(prepared, apart=invocation.directory, simulate=invocation.simulate)
    reused = 0
    for directory in runs:
        with suppress(RunError):  # What cannot be read is bought.
            for _ in _reusable(view_run(directory), wanted, prepared):
                reused += 1
    followers = wanted.followers() if spec.dedupe else {}
    return TakenOver(reused=reused, duplicates=duplicates, followers=followers)


def together(prepared: Prepared, selection: Selection, skip: bytearray, resend: Asks | None) -> TakenOver:
    """Of items that are bought again those that ask the same, now too where they are sent otherwise: one for all."""
    return TakenOver(followers=_wanted(prepared, selection, skip, resend).followers())


def _reusable(view: View, wanted: Wanted, prepared: Prepared) -> Iterator[Outcome]:
    """Copies of another run's answers, those alone that are what this job expects."""
    expectation = prepared.ready.expected.expectation

    def accepts(outcome: Outcome) -> bool:
        if expectation is None:
            return True
        return expectation.fault(Completion(text=outcome.text, finish_reason=outcome.finish_reason)) is None

    return copies(view, wanted, origin=REUSED, statuses=ANSWERED, accepts=accepts)


def fanned_out(
    record: Callable[[Outcome], Awaitable[None]],
    followers: Mapping[int, list[Open]],
    settled: Callable[[Outcome], None],
) -> Callable[[Outcome], Awaitable[None]]:
    """`record`, which also gives an outcome to the rows that ask the same, and tells of each."""
    if not followers:
        return record

    async def record_each(outcome: Outcome) -> None:
        await record(outcome)
        for item in followers.get(outcome.row, ()) if outcome.status != "unfinished" else ():
            copy = copy_for(item, outcome, DUPLICATE)
            await record(copy)
            settled(copy)

    return record_each


def earlier_runs(prepared: Prepared, *, apart: Path, simulate: bool) -> Iterator[Path]:
    """The run directories that `reuse.from` names, and their shards, the one first that was at work last: what was
    bought again replaces what it was bought for. Simulated ones for a simulated run alone.

    Neither this run nor one that --fresh has set aside. Raises JobError for what is on an object store.
    """
    return iter(sorted(_earlier_runs(prepared, apart, simulate), key=_worked_at, reverse=True))


def _without_runs(prepared: Prepared) -> Iterator[str]:
    """Of names that are no patterns those where no run is: a pattern may have none yet."""
    job = prepared.ready.job
    for name in job.reuse.sources or ():
        directory = job.base / Path(name).expanduser()
        if "://" not in name and not (
            glob.has_magic(name) or (directory / "commits").is_dir() or shard_folders(directory)
        ):
            yield f"reuse.from: {name}: no run there (looked in {job.base}), so nothing is taken over from it"


def _worked_at(directory: Path) -> tuple[int, str]:
    return (directory / "run.json").stat().st_mtime_ns, str(directory)


def _earlier_runs(prepared: Prepared, apart: Path, simulate: bool) -> Iterator[Path]:
    job = prepared.ready.job
    for pattern in job.reuse.sources or ():
        if "://" in pattern:
            raise JobError(f"reuse.from: expected directories of earlier runs, got {pattern}; copy the run to a disk")
        for name in sorted(glob.glob(os.path.expanduser(pattern), root_dir=job.base)):  # noqa: PTH111, PTH207
            whole = job.base / name
            aside = _SET_ASIDE.fullmatch(whole.name)
            if aside and (whole.with_name(aside[1]) / "commits").is_dir():
                continue
            for directory in (whole, *shard_folders(whole)):
                if (directory / "commits").is_dir() and directory.resolve() != apart.resolve():
                    manifest = read_manifest(directory / "run.json")
                    if not manifest:
                        continue  # Ended before it said what it is; what it had was taken over itself.
                    if bool((manifest.get("call") or {}).get("given", {}).get("simulate")) == simulate:
                        yield directory


def _wanted(prepared: Prepared, selection: Selection, skip: bytes | bytearray, resend: Asks | None = None) -> Wanted:
    """The open rows that are asked on their own, by what they ask, and what is sent instead."""
    if prepared.asker.has_turns:
        raise JobError("reuse: expected items of one turn each; leave [reuse] out of a job with turns")
    wanted = Wanted()
    for item in selection.of(prepared.ready.source.rows(skip=skip, stop=selection.stop)):
        key = None if prepared.session_of(item) is not None else prepared.key_of(item)
        if key is not None and resend is not None:
            key = _both(key, prepared.key_of(item, resend))
        if key is not None:
            wanted.add(Open(row=item.row, item_id=item.item_id, file=item.file, line=item.line), key)
    wanted.sort()
    return wanted


def _both(key: str, other: str | None) -> str | None:
    return None if other is None else blake2b(f"{key} {other}".encode(), digest_size=16).hexdigest()


def record_all(run: Run, outcomes: Iterable[Outcome]) -> int:
    """Write outcomes to a run that has begun; how many there were. Raises StoreError."""
    count = 0
    waiting: list[Outcome] = []
    for outcome in outcomes:
        waiting.append(outcome)
        if len(waiting) == WRITTEN_AT_ONCE:
            count += _write(run, waiting)
    return count + _write(run, waiting)


def _write(run: Run, outcomes: list[Outcome]) -> int:
    count = len(outcomes)
    if count:
        run.write([entry(outcome) for outcome in outcomes])
        outcomes.clear()
        if run.ripe:
            run.seal()
    return count
