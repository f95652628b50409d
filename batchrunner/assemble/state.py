"""run.json: what a run tells people and schedulers, while it lives and after."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchrunner import __version__
from batchrunner.assemble.ending import failures, spent_now
from batchrunner.assemble.pulse import pulse
from batchrunner.errors import BudgetReached
from batchrunner.store import doubts, lock_is_held, lock_path, read_manifest, totals, view_run, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batchrunner.assemble.selection import Selection
    from batchrunner.errors import BatchrunnerError
    from batchrunner.events import Progress, Tally
    from batchrunner.spec import JobSpec
    from batchrunner.store import Ledger, Run, Totals

FORMAT_VERSION = 1
HISTORY = 100
BUDGET = 17


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True, kw_only=True)
class Chronicle:
    """The manifest of a run in the hands of its owner."""

    run: Run
    job: JobSpec
    call: Mapping[str, Any]
    selection: Selection
    spent: Totals
    """What the run had come to before this invocation."""
    told: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Hears what is written, whatever becomes of it."""
    expected: Mapping[str, Any] | None = None
    """What is expected of the answers, for readers."""
    began_at: str = field(default_factory=_now)
    before: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.before = read_manifest(self.path) or {}

    @property
    def path(self) -> Path:
        return self.run.directory / "run.json"

    @property
    def left_before(self) -> int:
        """Requests of earlier invocations that may be billed, for items left without an outcome: no record has them."""
        return int(self.before.get("left_possibly_billed", 0))

    @property
    def resumed(self) -> bool:
        return bool(self.before)

    def recovered(self) -> dict[str, Any]:
        found = self.run.recovered
        facts = {"recovered": found.outcomes, "torn_bytes": found.torn_bytes, "lost": list(found.lost)}
        return {name: fact for name, fact in facts.items() if fact}

    def notes(self) -> list[str]:
        """What a person should know of the life before this one."""
        found, notes = self.run.recovered, []
        doubt = doubts(self.run.directory)
        if doubt:
            notes.append(doubt)
        if self.before.get("state") == "running":
            twice = self.before.get("most_in_flight", self.before.get("slots", 0))
            notes.append(
                f"the last run was killed; {found.outcomes:,} outcomes were recovered from its journal, "
                f"up to {max(twice, 1):,} requests were in flight and may be paid twice"
            )
        notes += found.notes
        notes += [f"salvaged: {sentence}" for sentence in found.lost]
        if found.torn_bytes:
            notes.append(f"{found.torn_bytes:,} bytes of a record that was being written were cut")
        return notes

    def stopped_before(self, job: JobSpec) -> BatchrunnerError | None:
        """The budget that ended the last invocation ends this one too, unless it, the job or the input is another."""
        last = (self.before.get("history") or [{}])[-1]
        caps = [job.budget.max_cost_usd, job.budget.max_tokens_total]
        if last.get("exit") != BUDGET or last.get("budget") != caps:
            return None
        if last.get("epoch", self.run.commit.epoch) != self.run.commit.epoch:
            return None
        return BudgetReached(str(last.get("reason")))

    def beat(self, progress: Progress, tally: Tally) -> None:
        """Write the live state; called in a thread. Raises StoreError, RunLocked."""
        self.run.check()
        succeeded, rejected, exhausted = counts(self.run.ledger, self.selection.stop)
        left, now = self.left_before + tally.left_possibly_billed, tally.now.possibly_billed
        self._write(
            {
                "type": "running",
                "name": self.job.name,
                "run": self.run.place,
                "results": None,
                "exit": None,
                "reason": "running",
                "retryable": None,
                "next": None,
                "items": {
                    "total": tally.total,
                    "succeeded": succeeded,
                    "rejected": rejected,
                    "exhausted": exhausted,
                    "unfinished": max(0, tally.total - succeeded - rejected - exhausted),
                    "length": tally.before.length + tally.now.length,
                },
                "now": {
                    "sent": tally.sent,
                    "settled_before": tally.before.succeeded + tally.before.rejected,
                    "cost_usd": tally.now.cost_usd,
                    "seconds": round(tally.seconds, 3),
                    "possibly_billed": now + tally.left_possibly_billed,
                    **spent_now(tally),
                },
                "prompt_tokens": tally.now.prompt_tokens,
                "completion_tokens": tally.now.completion_tokens,
                "cost_usd": tally.now.cost_usd,
                "possibly_billed": self.spent.possibly_billed + left + now,
                "left_possibly_billed": left,
                "failed_by_type": {
                    kind: {"count": failure.count, "first_id": failure.item_id, "first_row": failure.row}
                    for kind, failure in tally.failed_by_type().items()
                },
                "labels": dict(self.job.labels),
                **_pace(progress),
            },
            state="running",
        )

    def end(self, summary: Mapping[str, Any], *, draining: bool, left: int) -> None:
        """Write how the invocation ended. `left`: items that were not given their chance."""
        unfinished = summary["items"]["unfinished"] or left
        caps = [self.job.budget.max_cost_usd, self.job.budget.max_tokens_total]
        entry = {
            "began_at": self.began_at,
            "ended_at": _now(),
            "exit": summary["exit"],
            "reason": summary["reason"],
            "sent": summary["now"]["sent"],
            "cost_usd": summary["now"]["cost_usd"],
            "seconds": summary["now"]["seconds"],
            "possibly_billed": summary["now"]["possibly_billed"],
            "budget": caps,
            "epoch": self.run.commit.epoch,
        }
        history = [*(self.before.get("history") or []), entry][-HISTORY:]
        state = "drained" if unfinished and draining else "stopped" if unfinished else "finished"
        self._write({**summary, "in_flight": 0}, state=state, history=history)

    def _write(
        self,
        facts: Mapping[str, Any],
        *,
        state: str,
        history: list[dict[str, Any]] | None = None,
    ) -> None:
        manifest = {
            **facts,
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "state": state,
            "heartbeat_at": _now(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "job": self.job.public(),
            **({"expect": self.expected} if self.expected is not None else {}),
            "input": {**self.run.commit.input, "rows": self.run.commit.rows, "base": str(self.job.base.resolve())},
            "call": dict(self.call),
            "selection": {
                "index": self.selection.index,
                "shards": self.selection.shards,
                "stop": self.selection.stop,
                "limit": self.selection.limit,
            },
            "history": self.before.get("history") or [] if history is None else history,
        }
        self.told(manifest)
        write_manifest(self.path, manifest, self.job.output.mode)
        if self.run.mirror and state != "running":
            self.run.mirror.put_manifest()


def _pace(progress: Progress) -> dict[str, Any]:
    """How quickly it goes, and what holds it up."""
    return {
        "per_minute": round(progress.per_minute, 1),
        "limit_per_minute": progress.limit_per_minute,
        "throttled": progress.throttled,
        "in_flight": progress.in_flight,
        "most_in_flight": progress.most_in_flight,
        "slots": progress.slots,
        "left_s": progress.left_s,
        "notes": list(progress.notes),
        "lanes": list(progress.lanes),
        "oldest": list(progress.oldest),
        "slowest": list(progress.slowest),
    }


def counts(ledger: Ledger, stop: int | None) -> tuple[int, int, int]:
    """Rows before `stop` that succeeded, were rejected, are exhausted."""
    codes = ledger.codes if stop is None else ledger.codes[:stop]
    succeeded, rejected, exhausted, bad = (codes.count(code) for code in range(1, 5))
    return succeeded, rejected + bad, exhausted


def state_of(directory: Path, *, alive: bool | None = None) -> dict[str, Any]:
    """The state of a run from its files: the manifest, with counts of the outcomes there are. Raises RunError.

    `alive` says whether a process is at work on it, where that cannot be told from the files.
    """
    view = view_run(directory)
    manifest = read_manifest(directory / "run.json") or {}
    stop = (manifest.get("selection") or {}).get("stop")
    ledger, added = view.ledger, totals(view)
    succeeded, rejected, exhausted = counts(ledger, stop)
    locked = lock_is_held(lock_path(directory)) if alive is None else alive
    life = pulse(manifest, locked=locked)
    total = (manifest.get("items") or {}).get("total", ledger.rows)
    done = succeeded + rejected + exhausted
    counted = {
        "items": {
            "total": total,
            "succeeded": succeeded,
            "rejected": rejected,
            "exhausted": exhausted,
            "unfinished": max(0, total - done),
            "length": added.length,
        },
        "prompt_tokens": (added.prompt_tokens or 0) + (added.failed_prompt_tokens or 0),
        "completion_tokens": (added.completion_tokens or 0) + (added.failed_completion_tokens or 0),
        "cost_usd": None if added.cost_unknown else added.cost_usd or 0.0,
        "possibly_billed": added.possibly_billed + manifest.get("left_possibly_billed", 0),
        "failed_by_type": failures(added),
    }
    unborn = {
        "type": "running",
        "name": directory.name,
        "run": str(directory),
        "state": "running" if life["alive"] else "stopped",
        "now": {"sent": 0, "settled_before": done, "cost_usd": 0.0, "seconds": 0.0, "possibly_billed": 0},
    }
    return {**unborn, **manifest, **counted, **life}
