"""Groups held against a baseline: means with intervals, wins and losses by case, cost and time, and what differs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from batchrunner.errors import JobError
from batchrunner.evaluate.cases import SCORE
from batchrunner.evaluate.resampling import intervals, paired

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchrunner.evaluate.cases import Cases

TIE = 1e-9
MOST_DIFFERING = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """What a group scored, over cases; repeats of a case count as one, by their mean."""

    score: str
    group: str
    cases: int
    mean: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A group's score against the baseline's. Won, lost and tied are cases that both have; None where none can be."""

    score: str
    group: str
    cases: int
    difference: float | None
    interval: Interval | None
    won: int | None
    lost: int | None
    tied: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a group's items came to. An unknown price leaves its costs unknown."""

    name: str
    items: int
    succeeded: int
    cases: int
    cost_usd: float | None
    tokens: int
    latency_p50_s: float | None
    latency_p95_s: float | None

    @property
    def failed(self) -> int:
        return self.items - self.succeeded

    @property
    def item_usd(self) -> float | None:
        return self.cost_usd / self.items if self.cost_usd is not None and self.items else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """A case that the groups do not agree on."""

    case: str
    scores: Mapping[str, Mapping[str, float | None]]
    """By score, by group."""
    items: Mapping[str, tuple[int, int]]
    """By group the run's number and the row of its first item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    by: str | None
    baseline: str
    paired: bool
    groups: Sequence[Group]
    """In order of appearance."""
    means: Sequence[Mean]
    pairings: Sequence[Pairing]
    differing: Sequence[Differing]
    """The widest apart first."""
    differing_cases: int
    """How many there are in all."""

    @property
    def scores(self) -> list[str]:
        return list(dict.fromkeys(mean.score for mean in self.means))


def compare(cases: Cases, *, baseline: str | None = None) -> Comparison:
    """Raises JobError for a baseline that is no group."""
    if baseline is not None and baseline not in cases.groups:
        near = difflib.get_close_matches(baseline, cases.groups, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (found: {', '.join(cases.groups)})"
        raise JobError(f"--baseline {baseline}: no such group{hint}")
    first = baseline or cases.groups[0]
    wide = _wide(cases)
    means, pairings = _judged(cases, wide, first)
    differing = _differing(cases, wide) if cases.paired else wide.select("case").clear()
    return Comparison(
        by=cases.by,
        baseline=first,
        paired=cases.paired,
        groups=[_group(name, cases.items.filter(pl.col("group") == name)) for name in cases.groups],
        means=means,
        pairings=pairings,
        differing=[*_shown(cases, wide, differing.head(MOST_DIFFERING))],
        differing_cases=len(differing),
    )


def _column(group: int, score: str) -> str:
    return f"{group}:{score}"


def _wide(cases: Cases) -> pl.DataFrame:
    """A row for each case, a column for each group and score."""
    scores = [f"{SCORE}{name}" for name in cases.scores]
    each = cases.items.group_by("case", "group", maintain_order=True).agg(pl.col(name).mean() for name in scores)
    wide = each.select(pl.col("case").unique(maintain_order=True))
    for number, group in enumerate(cases.groups):
        named = {f"{SCORE}{name}": _column(number, name) for name in cases.scores}
        own = each.filter(pl.col("group") == group).select("case", *scores).rename(named)
        wide = wide.join(own, on="case", how="left", maintain_order="left")
    return wide


def _judged(cases: Cases, wide: pl.DataFrame, baseline: str) -> tuple[list[Mean], list[Pairing]]:
    base = cases.groups.index(baseline)
    pairs = [
        (f"{_column(number, score)} - base", _column(number, score), _column(base, score))
        for score in cases.scores
        for number in range(len(cases.groups))
        if number != base
    ]
    numbers = wide.drop("case")
    if cases.paired:
        numbers = paired(numbers, pairs)
        found = intervals(numbers, {})
    else:
        found = intervals(numbers, {name: (one, other) for name, one, other in pairs})
    means = [
        _mean(numbers, found, score, number, group)
        for score in cases.scores
        for number, group in enumerate(cases.groups)
    ]
    pairings = [
        _pairing(numbers, found, (score, number, base), group=group, by_case=cases.paired)
        for score in cases.scores
        for number, group in enumerate(cases.groups)
        if number != base
    ]
    return means, pairings


def _mean(numbers: pl.DataFrame, found: Mapping[str, tuple[float, float]], score: str, number: int, group: str) -> Mean:
    name = _column(number, score)
    known = numbers[name].drop_nulls()
    return Mean(
        score=score, group=group, cases=len(known), mean=_float(known.mean()), interval=_interval(found.get(name))
    )


def _pairing(
    numbers: pl.DataFrame,
    found: Mapping[str, tuple[float, float]],
    of: tuple[str, int, int],
    *,
    group: str,
    by_case: bool,
) -> Pairing:
    score, number, base = of
    name = f"{_column(number, score)} - base"
    interval = _interval(found.get(name))
    if not by_case:
        one, other = (numbers[_column(each, score)].drop_nulls() for each in (number, base))
        mean, less = _float(one.mean()), _float(other.mean())
        difference = None if mean is None or less is None else mean - less
        nothing = {"won": None, "lost": None, "tied": None}
        return Pairing(score=score, group=group, cases=len(one), difference=difference, interval=interval, **nothing)
    apart = numbers[name].drop_nulls()
    won, lost = int((apart > TIE).sum()), int((apart < -TIE).sum())
    return Pairing(
        score=score,
        group=group,
        cases=len(apart),
        difference=_float(apart.mean()),
        interval=interval,
        won=won,
        lost=lost,
        tied=len(apart) - won - lost,
    )


def _interval(found: tuple[float, float] | None) -> Interval | None:
    return None if found is None else Interval(low=found[0], high=found[1])


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _group(name: str, items: pl.DataFrame) -> Group:
    good = items.filter("succeeded")
    tokens = ("prompt_tokens", "completion_tokens", "failed_prompt_tokens", "failed_completion_tokens")
    return Group(
        name=name,
        items=len(items),
        succeeded=len(good),
        cases=items["case"].n_unique(),
        cost_usd=None if items["unpriced"].any() else float(items["cost_usd"].sum()),
        tokens=int(items.select(pl.sum_horizontal(pl.col(each).sum() for each in tokens)).item()),
        latency_p50_s=_float(good["latency_s"].quantile(0.5, "linear")),
        latency_p95_s=_float(good["latency_s"].quantile(0.95, "linear")),
    )


def _differing(cases: Cases, wide: pl.DataFrame) -> pl.DataFrame:
    """The cases that groups do not agree on, those furthest apart first: by score, or where there is none by what
    came of them, then by what was said."""
    if not cases.scores:
        kinds = cases.items.group_by("case", maintain_order=True).agg(
            pl.col("group").n_unique().alias("groups"),
            pl.col("succeeded").n_unique().alias("outcomes"),
            pl.col("said").n_unique().alias("texts"),
        )
        several = kinds.filter((pl.col("groups") > 1) & ((pl.col("outcomes") > 1) | (pl.col("texts") > 1)))
        return several.sort("outcomes", descending=True, maintain_order=True).select("case")
    spreads = [_spread(cases, wide, score) for score in cases.scores]
    apart = wide.select("case", pl.max_horizontal(spreads).alias("most"), pl.sum_horizontal(spreads).alias("all"))
    return apart.filter(pl.col("most") > TIE).sort("most", "all", descending=True, maintain_order=True).select("case")


def _spread(cases: Cases, wide: pl.DataFrame, score: str) -> pl.Expr:
    """How far the groups are apart in a score, as a share of its whole range."""
    names = [_column(number, score) for number in range(len(cases.groups))]
    ends = wide.select(pl.max_horizontal(names).max().alias("top"), pl.min_horizontal(names).min().alias("bottom"))
    top, bottom = ends.row(0)
    whole = (top - bottom) if top is not None and top > bottom else 1.0
    return ((pl.max_horizontal(names) - pl.min_horizontal(names)) / whole).fill_null(0.0)


def _shown(cases: Cases, wide: pl.DataFrame, chosen: pl.DataFrame) -> Iterator[Differing]:
    wanted = cases.items.filter(pl.col("case").is_in(chosen["case"].to_list()))
    firsts = wanted.group_by("case", "group", maintain_order=True).agg(pl.col("run").first(), pl.col("row").first())
    items: dict[str, dict[str, tuple[int, int]]] = {}
    for case, group, run, row in firsts.iter_rows():
        items.setdefault(case, {})[group] = (run, row)
    for row in chosen.join(wide, on="case", how="left", maintain_order="left").iter_rows(named=True):
        scores = {
            score: {group: row[_column(number, score)] for number, group in enumerate(cases.groups)}
            for score in cases.scores
        }
        yield Differing(case=row["case"], scores=scores, items=items[row["case"]])
