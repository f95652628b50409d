"""The shards of a run as one: their progress, their endings, their books added up."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.assemble import ending, state_of
from batchrunner.assemble.merge import failures_of
from batchrunner.errors import RunError
from batchrunner.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batchrunner.assemble import Place
    from batchrunner.spec import JobSpec, MaxFailed

TOLD = 3
"""So many of what several shards have are told: lanes by shard, notes, slow items."""
ITEMS = ("total", "succeeded", "rejected", "exhausted", "unfinished", "length")
NOW = ("sent", "settled_before", "cost_usd", "possibly_billed")
BOOKS = ("prompt_tokens", "completion_tokens", "cost_usd", "possibly_billed", "left_possibly_billed")
SHARD = ("run", "exit", "reason", "items", "now", "pace", "latency", "lanes")
GRAVEST = (1, 16, 10, 2, 11, 12, 13, 17, 15, 14, 143, 130, 129)
"""Exit codes of shards that did not get through, the one that counts for all first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a worker has to tell: its shard's first line once it has one, lines from some number on, where it is."""

    began: Mapping[str, Any] | None = None
    lines: tuple[str, ...] = ()
    progress: Progress | None = None


class Relay:
    """The display of a shard whose watcher is elsewhere, and looks now and then. From any thread."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._began: Mapping[str, Any] | None = None
        self._lines: list[str] = []
        self._progress: Progress | None = None
        self._lock = threading.Lock()

    def began(self, line: str, facts: dict[str, Any]) -> None:
        self._began = {**facts, "line": line}

    def progress(self, now: Progress) -> None:
        self._progress = now

    def say(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    def ended(self) -> None:
        pass

    def look(self, since: int) -> Look:
        with self._lock:
            return Look(began=self._began, lines=tuple(self._lines[since:]), progress=self._progress)


def together(name: str, shards: Sequence[Progress], *, seconds: float, notes: Sequence[str] = ()) -> Progress:
    """The progress of all shards as one."""
    costs = [one.cost_usd for one in shards]
    left = [one.left_s for one in shards if one.left_s is not None]
    kinds: dict[str, int] = {}
    for one in shards:
        for kind, count in one.failed_by_type.items():
            kinds[kind] = kinds.get(kind, 0) + count
    said = dict.fromkeys(note for one in shards for note in one.notes)
    return Progress(
        name=name,
        done=sum(one.done for one in shards),
        total=sum(one.total for one in shards),
        succeeded=sum(one.succeeded for one in shards),
        failed=sum(one.failed for one in shards),
        failed_by_type=kinds,
        per_minute=sum(one.per_minute for one in shards),
        limit_per_minute=_limit(shards),
        in_flight=sum(one.in_flight for one in shards),
        most_in_flight=sum(one.most_in_flight for one in shards),
        slots=sum(one.slots for one in shards),
        oldest_s=max((one.oldest_s for one in shards), default=0.0),
        waiting=sum(one.waiting for one in shards),
        throttled=sum(one.throttled for one in shards),
        tokens=sum(one.tokens for one in shards),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        seconds=seconds,
        left_s=max(left, default=None),
        draining=any(one.draining for one in shards),
        notes=(*notes, *list(said)[:TOLD]),
        lanes=_lanes(one.lanes for one in shards),
        oldest=_longest(one.oldest for one in shards),
        slowest=_longest(one.slowest for one in shards),
    )


def _limit(shards: Sequence[Progress]) -> float | None:
    """A rate that is shared counts once, rates that the shards have learned add up."""
    limits = [one.limit_per_minute for one in shards if one.limit_per_minute]
    learned = any(lane.get("requests_by") == "learned" for one in shards for lane in one.lanes)
    return None if not limits else sum(limits) if learned else max(limits)


def _lanes(by_shard: Iterable[Iterable[Mapping[str, object]]]) -> tuple[Mapping[str, object], ...]:
    return tuple({"shard": number, **lane} for number, lanes in enumerate(by_shard) for lane in list(lanes)[:TOLD])


def _longest(by_shard: Iterable[Iterable[Mapping[str, Any]]]) -> tuple[Mapping[str, Any], ...]:
    found = [one for some in by_shard for one in some]
    return tuple(sorted(found, key=lambda one: -float(one["seconds"]))[:TOLD])


def unfinished(place: Place, code: int, reason: str) -> dict[str, Any]:
    """The summary of a shard that did not get to one, from what this machine has of it."""
    try:
        state = state_of(place.directory)
    except RunError:
        state = {"run": str(place), "items": dict.fromkeys(ITEMS, 0)}
    now = {"sent": 0, "settled_before": 0, "cost_usd": 0.0, "possibly_billed": 0}
    return {**state, "now": now, "exit": code, "reason": reason, "results": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What the summary of a whole run is made of."""

    job: JobSpec
    run: str
    shards: Sequence[Mapping[str, Any]]
    seconds: float
    command: str
    max_failed: MaxFailed
    skip_exit_code: int | None = None


def conclude(ended: Ended, merge: Callable[[], str]) -> dict[str, Any]:
    """The summary object of the whole run, like that of any other; `merge` makes the results once all are through."""
    shards, seconds = ended.shards, ended.seconds
    count = {name: sum(shard["items"][name] for shard in shards) for name in ITEMS}
    items = ending.Items(**{name: count[name] for name in ITEMS if name != "unfinished"})
    how, results = _how(ended, items, merge)
    failing = [shard for shard in shards if shard["items"]["rejected"] + shard["items"]["exhausted"]]
    ready = ending.commands(how, items, (failing or shards)[0]["run"], ended.command)
    ready.pop("report", None)  # That would be of one shard.
    now = {name: _sum(shard["now"][name] for shard in shards) for name in NOW}
    return {
        "type": "fatal" if how.exit in ending.FATAL else "finished",
        "name": ended.job.name,
        "run": ended.run,
        "results": results,
        "exit": how.exit,
        "reason": how.reason,
        "retryable": how.exit in ending.HELPS,
        "next": next(iter(ready.values()), None),
        "items": count,
        "now": {**now, "seconds": round(seconds, 3)},
        **{name: _sum(shard.get(name, 0) for shard in shards) for name in BOOKS},
        "failed_by_type": failures_of([shard for shard in shards if shard.get("failed_by_type")]),
        "labels": dict(ended.job.labels),
        "max_cost_usd": ended.job.budget.max_cost_usd,
        "pace": f"{(now['sent'] or 0) / max(seconds, 1e-3) * 60:,.0f} requests a minute",
        "commands": ready,
        "shards": [{name: shard.get(name) for name in SHARD} for shard in shards],
    }


def _how(ended: Ended, items: ending.Items, merge: Callable[[], str]) -> tuple[ending.Ending, str | None]:
    """How it ended: as the shard that did so most gravely, or once all are through by their items together."""
    for code in GRAVEST:
        for shard in ended.shards:
            if shard["exit"] == code:
                return ending.Ending(exit=code, reason=f"{shard['run'].rpartition('/')[2]}: {shard['reason']}"), None
    how = ending.judge(None, items, ended.max_failed, left=0, redo=False)
    return how if items.total else ending.of_nothing(how, ended.skip_exit_code), merge()


def _sum(parts: Iterable[Any]) -> Any:
    """None where one of them is not known."""
    found = list(parts)
    return None if None in found else sum(found)
