"""How an invocation ended: its exit code, what to do next, and the summary that says so."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BatchrunnerError, RunLocked, StoreError

if TYPE_CHECKING:
    from batchrunner.events import Tally
    from batchrunner.spec import JobSpec, MaxFailed
    from batchrunner.store import Totals

REJECTED, EXHAUSTED, REFUSED, BUDGET = 3, 4, 12, 17
HELPS = frozenset({4, 11, 14, 15, 16, 129, 130, 143})
"""Exit codes after which the same command gets further, if only after a while or after making room."""
MEASURABLE_S = 3.0
"""A rate over less time says nothing."""
FINAL = (StoreError, RunLocked)
"""What ended the run even where every item has its outcome: not all of it is in place."""
FATAL = frozenset({1, 2, 10, 11, 12, 13, 16})


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The items of this invocation's selection, by outcome."""

    total: int
    succeeded: int
    rejected: int
    exhausted: int
    length: int
    behind: int = 0
    """Of the rejected ones: those that only stood behind another in their session."""

    @property
    def lasting(self) -> int:
        """How many rejected items another run cannot help: one may help those behind an exhausted one."""
        return self.rejected - self.behind if self.exhausted else self.rejected

    @property
    def unfinished(self) -> int:
        return max(0, self.total - self.succeeded - self.rejected - self.exhausted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    exit: int
    reason: str


def judge(cause: BaseException | None, items: Items, max_failed: MaxFailed, *, left: int, redo: bool) -> Ending:
    """The exit code. What ended the run early counts while items are unfinished, or `left` without their new chance."""
    if isinstance(cause, FINAL) or (cause is not None and (items.unfinished or left)):
        code = cause.exit_code if isinstance(cause, BatchrunnerError) else 1
        return Ending(exit=code, reason=str(cause))
    if items.unfinished and not redo:
        return Ending(exit=1, reason=f"{items.unfinished:,} items were given no outcome: a bug in batchrunner")
    failed = items.rejected + items.exhausted
    if max_failed.allows(failed, items.total):
        return Ending(exit=0, reason="finished")
    if not max_failed.allows(items.lasting, items.total):
        return Ending(exit=REJECTED, reason=f"{items.rejected:,} items were rejected; another attempt cannot help them")
    return Ending(exit=EXHAUSTED, reason=f"{items.exhausted:,} items are out of attempts; run again to try them again")


def of_nothing(ending: Ending, skip_exit_code: int | None) -> Ending:
    """The same for an input without rows, which a scheduler may want to tell from work that was done."""
    if ending.exit or skip_exit_code is None:
        return ending
    return Ending(exit=skip_exit_code, reason="the input has no rows")


def commands(ending: Ending, items: Items, run: str, command: str, *, matrix: bool = False) -> dict[str, str]:
    """The ready commands: to go on, and to look."""
    where, found = shlex.quote(run), {}
    if ending.exit in HELPS:
        found["go on"] = command
    elif ending.exit == REFUSED:
        found["fixed?"] = command
    elif ending.exit == BUDGET:
        found["go on"] = _with_more(command, ending.reason)
    if items.length:
        found["longer"] = f"batchrunner redo {where} --where \"finish_reason = 'length'\" --set request.max_tokens=4096"
    if ending.exit == REJECTED or items.rejected + items.exhausted:
        found["look"] = f"batchrunner show {where} --failed"
    elif not ending.exit:
        found["look"] = f"batchrunner show {where} --sample 3"
    if items.succeeded + items.rejected + items.exhausted:
        found["report"] = f"batchrunner report {where}"
        found["page"] = f"batchrunner report {where} --html {shlex.quote(f'{PurePath(run).name}.html')}"
    if matrix and items.succeeded:
        found["compare"] = f"batchrunner compare {where}"
    return found


def _with_more(command: str, reason: str) -> str:
    """The command with a higher cap, of the kind that was reached."""
    flag = "--max-cost" if "$" in reason else "--max-tokens-total"
    return f"{re.sub(rf' {flag}[= ][^ ]+', '', command)} {flag} MORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a summary is made of."""

    job: JobSpec
    run: str
    results: str | None
    items: Items
    totals: Totals
    tally: Tally
    settled_before: int
    in_flight_given_up: int
    left_before: int
    """What may have been billed, in earlier invocations, for items that were left without an outcome."""
    throttled: int
    limit_per_minute: float | None
    command: str
    lanes: list[dict[str, object]] = field(default_factory=list)
    """How each lane was paced at the end, the first few."""


def summary(ending: Ending, told: Told) -> dict[str, Any]:
    """The summary object of DESIGN section 3; fields may be added, never changed."""
    items, totals, tally = told.items, told.totals, told.tally
    ready = commands(ending, items, told.run, told.command, matrix=bool(told.job.matrix))
    left = tally.left_possibly_billed + told.in_flight_given_up
    return {
        "type": "fatal" if ending.exit in FATAL else "finished",
        "name": told.job.name,
        "run": told.run,
        "results": told.results,
        "exit": ending.exit,
        "reason": ending.reason,
        "retryable": ending.exit in HELPS,
        "next": next(iter(ready.values()), None),
        "items": {
            "total": items.total,
            "succeeded": items.succeeded,
            "rejected": items.rejected,
            "exhausted": items.exhausted,
            "unfinished": items.unfinished,
            "length": items.length,
        },
        "now": {
            "sent": tally.sent + told.in_flight_given_up,
            "settled_before": told.settled_before,
            "cost_usd": tally.now.cost_usd,
            "seconds": round(tally.seconds, 3),
            "possibly_billed": tally.now.possibly_billed + left,
            **spent_now(tally),
        },
        "prompt_tokens": (totals.prompt_tokens or 0) + (totals.failed_prompt_tokens or 0),
        "completion_tokens": (totals.completion_tokens or 0) + (totals.failed_completion_tokens or 0),
        "cost_usd": None if totals.cost_unknown else totals.cost_usd or 0.0,
        "possibly_billed": totals.possibly_billed + told.left_before + left,
        "left_possibly_billed": told.left_before + left,
        "failed_by_type": failures(totals),
        "labels": dict(told.job.labels),
        "max_cost_usd": told.job.budget.max_cost_usd,
        "throttled": told.throttled,
        "limit_per_minute": told.limit_per_minute,
        "pace": _pace(told),
        "latency": _latency(tally),
        "slowest": tally.slowest.facts(),
        "lanes": told.lanes,
        "commands": ready,
    }


def spent_now(tally: Tally) -> dict[str, Any]:
    """What this invocation alone used, and how its items failed."""
    return {
        "prompt_tokens": tally.now.prompt_tokens,
        "completion_tokens": tally.now.completion_tokens,
        "failed_by_type": {kind: failure.count for kind, failure in tally.failed_by_type().items()},
    }


def failures(totals: Totals) -> dict[str, dict[str, Any]]:
    """The table's failures by error type: how many, and the first in input order."""
    found: dict[str, dict[str, Any]] = {}
    for failure in totals.failures:
        facts = found.setdefault(failure.error_type, {"count": 0, "status": failure.status})
        facts["count"] += failure.items
        if failure.first_row <= facts.get("first_row", failure.first_row):
            facts |= {"first_id": failure.first_id, "first_row": failure.first_row, "first_error": failure.first_error}
    return found


def _pace(told: Told) -> str | None:
    tally = told.tally
    if not tally.sent:
        return None
    if tally.seconds < MEASURABLE_S:
        return f"{told.throttled:,} x 429"
    per_minute = tally.sent / max(tally.seconds, 1e-3) * 60
    text = f"{per_minute:,.0f} requests a minute"
    if told.limit_per_minute:
        text += f" of {told.limit_per_minute:,.0f} allowed"
    return f"{text}, {told.throttled:,} x 429"


def _latency(tally: Tally) -> str | None:
    p50, p95 = tally.latency.quantile(0.5), tally.latency.quantile(0.95)
    if p50 is None or p95 is None:
        return None
    slow = [f"{found['item_id']!r} {found['seconds']:.2g} s" for found in tally.slowest.facts()]
    return f"p50 {p50:.2g} s, p95 {p95:.2g} s" + (f", slowest {', '.join(slow)}" if slow else "")


def fatal(error: BatchrunnerError, job: JobSpec, run: str, command: str) -> dict[str, Any]:
    """The summary of an invocation that never began to send."""
    retry = error.exit_code in HELPS
    return {
        "type": "fatal",
        "name": job.name,
        "run": run,
        "results": None,
        "exit": error.exit_code,
        "reason": str(error),
        "retryable": retry,
        "next": command if retry else None,
    }
