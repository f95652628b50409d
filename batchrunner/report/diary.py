"""What a run's log tells of its life: when somebody was at work on it, and what was decided."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

BESIDE_PACING = frozenset({"item_rejected", "item_exhausted", "run_started", "run_ended", "bug_met"})
"""Events that decide nothing about how the run goes on."""
FIRST, LAST = 60, 60
"""So many decisions are kept of the beginning and of the end."""
MOST_RATES = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of the log, in words."""

    at: float
    event: str
    lane: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """From when on a lane kept to which allowance a minute, by which event; `run_started` forgets all of them."""

    at: float
    event: str
    lane: str
    requests: float | None
    tokens: float | None


@dataclass(slots=True, kw_only=True)
class Diary:
    """A run's log, in constant space. Times are seconds since 1970."""

    starts: list[float] = field(default_factory=list)
    """When each invocation began."""
    last_signs: list[float] = field(default_factory=list)
    """The last sign of life of each in the log, its end not counted."""
    rates: list[Rate] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often each event was written."""
    first: list[Decision] = field(default_factory=list)
    last: list[Decision] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """Decisions between the first and the last ones kept."""
        return self.of_pacing().total() - len(self.decisions)

    def of_pacing(self) -> Counter[str]:
        """How often each kind of decision was taken."""
        return Counter({name: number for name, number in self.counts.items() if name not in BESIDE_PACING})

    @property
    def decisions(self) -> list[Decision]:
        return [*self.first, *self.last]

    def add(self, at: float, event: str, fields: Mapping[str, Any]) -> None:
        self.counts[event] += 1
        if event == "run_started":
            self.starts.append(at)
            self.last_signs.append(at)
        elif event != "run_ended" and self.last_signs:
            self.last_signs[-1] = max(at, self.last_signs[-1])
        if event in RATES and len(self.rates) < MOST_RATES:
            self.rates.append(_rate(at, event, fields))
        if event not in BESIDE_PACING:
            self._keep(Decision(at=at, event=event, lane=str(fields.get("lane") or ""), said=said(event, fields)))

    def _keep(self, decision: Decision) -> None:
        if len(self.first) < FIRST:
            self.first.append(decision)
            return
        self.last.append(decision)
        if len(self.last) > 2 * LAST:
            del self.last[:-LAST]

    def closed(self) -> Diary:
        del self.last[:-LAST]
        return self


RATES = frozenset({"run_started", "limit_announced", "rate_learned", "rate_raised", "lease_lowered"})


def read_diary(log: Path) -> Diary:
    """What the log tells; nothing where there is none. A line that a crash cut is passed over."""
    diary = Diary()
    with suppress(FileNotFoundError), log.open(encoding="utf-8", errors="replace") as lines:
        for at, event, fields in _events(lines):
            diary.add(at, event, fields)
    return diary.closed()


def _events(lines: Iterator[str]) -> Iterator[tuple[float, str, Mapping[str, Any]]]:
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            found = json.loads(line)
            yield datetime.fromisoformat(found.pop("time")).timestamp(), str(found.pop("event")), found


def _rate(at: float, event: str, fields: Mapping[str, Any]) -> Rate:
    return Rate(
        at=at,
        event=event,
        lane=str(fields.get("lane") or ""),
        requests=_number(fields.get("requests_per_minute")),
        tokens=_number(fields.get("tokens_per_minute")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def said(event: str, fields: Mapping[str, Any]) -> str:
    """An event in words; of one that is not known, its fields."""
    words = _WORDS.get(event)
    if words is not None:
        with suppress(KeyError, TypeError, ValueError, IndexError):
            return words(fields)
    return ", ".join(f"{name} {value}" for name, value in fields.items() if name != "lane" and value is not None)


def _announced(fields: Mapping[str, Any]) -> str:
    names = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}
    told = [f"{fields[name]:,.0f} {what} a minute" for name, what in names.items() if fields.get(name)]
    return f"the server announced {' and '.join(told) or 'no limit'}"


def _paused(fields: Mapping[str, Any]) -> str:
    why = str(fields.get("reason") or fields.get("error_type") or "asked to wait").replace("_", " ")
    return f"nothing was sent for {fields['seconds']:,.1f} s: {why}"


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "signal_received": lambda f: f"{f['signal']} received" + (f", number {f['count']}" if f["count"] > 1 else ""),
    "lane_paused": _paused,
    "lane_down": lambda f: f"nothing came through; one probe after {f['probe_s']:,.0f} s: {f['error']}",
    "lane_up": lambda f: "a probe came through",
    "limit_announced": _announced,
    "rate_learned": lambda f: f"refusals taught {f['requests_per_minute']:,.0f} requests a minute ({f['by']})",
    "rate_raised": lambda f: f"tried more: {f['requests_per_minute']:,.0f} requests a minute",
    "lease_lowered": lambda f: f"another process on the lease names {f['requests_per_minute']:,.0f} a minute",
    "concurrency_cut": lambda f: f"at most {f['concurrency']:,} in flight: {f['error']}",
    "concurrency_eased": lambda f: (
        f"at most {f['concurrency']:,} in flight: replies took {f['latency_s']:.2g} s, at their quickest "
        f"{f['usual_s']:.2g} s"
    ),
    "concurrency_capped": lambda f: f"at most {f['concurrency']:,} in flight: the limit of open files",
    "retry_budget_emptied": lambda f: f"{f['retries']:,} of the last {f['requests']:,} requests were retries",
    "disk_full": lambda f: f"nothing was sent until there was room: {f['error']}",
    "disk_has_room": lambda f: "the disk had room again",
}
