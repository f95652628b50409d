"""How fast a run went over the time that somebody was at work on it, and what was allowed meanwhile."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.report.diary import Diary, Rate

MOST_BINS = 20_000
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)


class Settled:
    """Attempts and tokens by the second in which their item settled; by wider bins where these would be too many."""

    def __init__(self) -> None:
        self.width_s = 1
        self.bins: dict[int, tuple[int, int]] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take in rows with `finished_at`, `attempts` and `tokens`."""
        at = pl.col("finished_at").dt.epoch("s") // self.width_s
        found = frame.drop_nulls("finished_at").group_by(at.alias("at")).agg(pl.col("attempts", "tokens").sum())
        for bin_, attempts, tokens in found.iter_rows():
            self._add(bin_, attempts, tokens)
        while len(self.bins) > MOST_BINS:
            self._widen()

    def _add(self, bin_: int, attempts: int, tokens: int) -> None:
        old = self.bins.get(bin_, (0, 0))
        self.bins[bin_] = old[0] + attempts, old[1] + tokens

    def _widen(self) -> None:
        fine, self.bins = self.bins, {}
        self.width_s *= 2
        for bin_, (attempts, tokens) in fine.items():
            self._add(bin_ // 2, attempts, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A piece of the working time: `start_s` counts from the first beginning, without the time between invocations."""

    start_s: float
    seconds: float
    attempts: int
    tokens: int
    requests_limit: float | None
    tokens_limit: float | None

    @property
    def requests_per_minute(self) -> float:
        return self.attempts / self.seconds * 60

    def per_minute(self, what: str) -> float:
        """The rate of `requests` or `tokens`."""
        return (self.attempts if what == "requests" else self.tokens) / self.seconds * 60

    def limit(self, what: str) -> float | None:
        return self.requests_limit if what == "requests" else self.tokens_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    stretches: Sequence[Stretch]
    step_s: float
    resumed_s: Sequence[float]
    """When, in working time, a later invocation went on."""

    @property
    def seconds(self) -> float:
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def attempts(self) -> int:
        return sum(stretch.attempts for stretch in self.stretches)

    def fewer(self, most: int) -> list[Stretch]:
        """The same time in at most so many stretches."""
        step = max(1, -(-len(self.stretches) // most))
        return [self.joined(first, first + step) for first in range(0, len(self.stretches), step)]

    def joined(self, first: int, last: int) -> Stretch:
        """The stretches from `first` until before `last` as one, with the mean of the limits that are known."""
        taken = self.stretches[first:last]
        return Stretch(
            start_s=taken[0].start_s,
            seconds=sum(each.seconds for each in taken),
            attempts=sum(each.attempts for each in taken),
            tokens=sum(each.tokens for each in taken),
            requests_limit=_mean([(each.requests_limit, each.seconds) for each in taken]),
            tokens_limit=_mean([(each.tokens_limit, each.seconds) for each in taken]),
        )

    def used(self, what: str) -> float | None:
        """The share of the allowed `requests` or `tokens` that was used, where the limit is known."""
        known = [each for each in self.stretches if each.limit(what)]
        allowed = sum((each.limit(what) or 0) * each.seconds / 60 for each in known)
        done = sum(each.per_minute(what) * each.seconds / 60 for each in known)
        return done / allowed if allowed else None


def _mean(limits: Sequence[tuple[float | None, float]]) -> float | None:
    known = [(limit, seconds) for limit, seconds in limits if limit is not None]
    return sum(limit * seconds for limit, seconds in known) / sum(s for _, s in known) if known else None


class _Work:
    """Working time: that of each invocation, one after another, without what lies between them."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self.starts = [start for start, _ in spans]
        self.ends = [end for _, end in spans]
        self.before = [0.0, *accumulate(end - start for start, end in spans)]

    @property
    def seconds(self) -> float:
        return self.before[-1]

    def until(self, moment: float) -> float:
        """Working time up to a moment of the clock."""
        number = bisect_right(self.starts, moment) - 1
        return 0.0 if number < 0 else self.before[number] + min(moment, self.ends[number]) - self.starts[number]

    def by_clock(self, worked_s: float) -> float:
        number = min(bisect_right(self.before, worked_s), len(self.starts)) - 1
        return self.starts[number] + worked_s - self.before[number]


def timeline(settled: Settled, diary: Diary, allowances: Allowances, *, most: int = 60) -> Timeline:
    """The working time in at most so many equal stretches."""
    work = _Work(_spans(settled, diary))
    step_s = next((step for step in STEPS_S if step >= work.seconds / most), work.seconds / most)
    step_s = max(float(step_s), float(settled.width_s))
    count = max(1, round(work.seconds / step_s)) if work.seconds else 0
    sums = [(0, 0)] * count
    for bin_, (attempts, tokens) in settled.bins.items():
        at = min(int(work.until((bin_ + 0.5) * settled.width_s) / step_s), count - 1)
        sums[at] = sums[at][0] + attempts, sums[at][1] + tokens
    edges = [*(number * step_s for number in range(count)), work.seconds]
    stretches = [
        _stretch(edges[number : number + 2], each, allowances, work.by_clock(sum(edges[number : number + 2]) / 2))
        for number, each in enumerate(sums)
    ]
    return Timeline(stretches=stretches, step_s=step_s, resumed_s=work.before[1:-1])


def _stretch(edges: Sequence[float], sums: tuple[int, int], allowances: Allowances, middle: float) -> Stretch:
    return Stretch(
        start_s=edges[0],
        seconds=max(edges[1] - edges[0], 1e-3),
        attempts=sums[0],
        tokens=sums[1],
        requests_limit=allowances.at(middle, "requests"),
        tokens_limit=allowances.at(middle, "tokens"),
    )


def _spans(settled: Settled, diary: Diary) -> list[tuple[float, float]]:
    """When somebody was at work: from each start to the last sign of life before the next."""
    width = settled.width_s
    times = sorted(bin_ * width for bin_ in settled.bins)
    starts = sorted(diary.starts) if times else []
    if times and (not starts or times[0] + width < starts[0]):
        starts.insert(0, float(times[0]))
    spans = []
    for number, start in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else float("inf")
        signs = [at for at in diary.last_signs if start <= at < following]
        before = bisect_right(times, following - width)
        if before and times[before - 1] + width > start:
            signs.append(times[before - 1] + width)
        end = min(max(signs, default=start), following)
        if end > start:
            spans.append((start, end))
    return spans


@dataclass(slots=True, kw_only=True)
class Allowances:
    """What all lanes together were allowed a minute, at any time."""

    rates: Sequence[Rate]
    configured: Mapping[str, float | None]
    """What the job sets for each lane, by `requests` and `tokens`."""
    lanes: Sequence[str]
    at_the_end: Mapping[str, float | None]
    """For a log that tells nothing: what the manifest remembers."""
    share: float = 1.0
    """The part of what a server announces that this run may use."""
    _times: list[float] = field(init=False)
    _sums: list[dict[str, float | None]] = field(init=False)

    def __post_init__(self) -> None:
        self._times, self._sums = [], []
        told: dict[str, dict[str, float]] = {}
        for rate in sorted(self.rates, key=lambda rate: rate.at):
            if rate.event == "run_started":
                told = {}
            else:
                _hear(told.setdefault(rate.lane, {}), rate, self.share)
            self._times.append(rate.at)
            self._sums.append({what: self._sum(told, what) for what in ("requests", "tokens")})

    def at(self, moment: float, what: str) -> float | None:
        if all(rate.event == "run_started" for rate in self.rates):
            return self.at_the_end.get(what)
        number = bisect_right(self._times, moment)
        return self._sums[number - 1][what] if number else self.configured.get(what)

    def _sum(self, told: Mapping[str, Mapping[str, float]], what: str) -> float | None:
        limits = [self._of_lane(told.get(lane, {}), what) for lane in {*self.lanes, *told}]
        known = [limit for limit in limits if limit is not None]
        return sum(known) if known and len(known) == len(limits) else None

    def _of_lane(self, told: Mapping[str, float], what: str) -> float | None:
        limits = [value for name, value in told.items() if name.startswith(what)]
        own = self.configured.get(what)
        return min([*limits, *([own] if own else [])], default=None)


def _hear(told: dict[str, float], rate: Rate, share: float) -> None:
    kind = {"limit_announced": "announced", "lease_lowered": "leased"}.get(rate.event, "learned")
    for what, value in (("requests", rate.requests), ("tokens", rate.tokens)):
        if value is not None:
            told[f"{what} {kind}"] = value * (share if kind == "announced" else 1)


def allowances(state: Mapping[str, Any], diary: Diary) -> Allowances:
    """From the manifest and the log."""
    limits, lanes = (state.get("job") or {}).get("limits") or {}, state.get("lanes") or []
    shards = (state.get("selection") or {}).get("shards") or 1
    share = 1 if limits.get("lease") else 1 / shards
    configured = {
        what: value * share if isinstance(value := limits.get(f"{what}_per_minute"), int | float) else None
        for what in ("requests", "tokens")
    }
    tokens = [lane.get("tokens_per_minute") for lane in lanes]
    return Allowances(
        rates=diary.rates,
        share=share,
        configured=configured,
        lanes=[str(lane.get("lane") or "") for lane in lanes],
        at_the_end={
            "requests": state.get("limit_per_minute") or configured["requests"],
            "tokens": sum(tokens) if tokens and all(tokens) else configured["tokens"],
        },
    )
