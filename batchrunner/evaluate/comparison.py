"""Groups against a baseline: means with intervals, cases won and lost, what was spent, and where they differ."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchrunner.errors import JobError
from batchrunner.evaluate.cases import SCORE
from batchrunner.evaluate.differing import Differing, differing
from batchrunner.evaluate.resampling import Interval, difference_interval, mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.evaluate.cases import Cases

TIE = 1e-9
_VARIANCE = "variance:"
"""In front of a score's column: of the scores of one case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a group's items came to. What an item costs and takes is that of items that were sent, not copied."""

    name: str
    items: int
    cases: int
    succeeded: int
    repeated: int
    """Cases with several answers, as repeats of a matrix give them."""
    alike: int
    """Of those, cases whose answers are the same to the letter."""
    sent: int
    cost_usd: float | None
    """None where the price of any of them is not known."""
    tokens_per_item: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None

    @property
    def cost_per_item_usd(self) -> float | None:
        return None if self.cost_usd is None or not self.sent else self.cost_usd / self.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a group scored: the mean over its cases, repeats of a case as one by their mean."""

    score: str
    group: str
    cases: int
    unscored: int
    """Items without this score: they count nowhere, not as 0."""
    mean: float | None
    interval: Interval | None
    spread: float | None
    """How far the scores of a case lie apart: the standard deviation within cases. None where each has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A group's score less the baseline's, over the cases that both have."""

    score: str
    group: str
    paired: bool
    """False where no case is in both: then there is nothing to win, and `cases` counts those of either."""
    cases: int
    alone: int
    """Cases with this score in one of both only."""
    difference: float | None
    interval: Interval | None
    won: int | None
    lost: int | None
    tied: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    by: str | None
    baseline: str
    groups: Sequence[Group]
    """The baseline first, the others in order of appearance."""
    scores: Sequence[str]
    standings: Sequence[Standing]
    matches: Sequence[Match]
    differing: Sequence[Differing]
    """The furthest apart first, so many as were asked for."""
    differing_cases: int
    """How many cases differ in all."""
    shared_cases: int
    """How many cases are in more than one group: only these can differ."""
    unfinished: int

    def group(self, name: str) -> Group:
        return next(each for each in self.groups if each.name == name)

    def matches_of(self, score: str) -> list[Match]:
        return [match for match in self.matches if match.score == score]


def compare(cases: Cases, *, baseline: str | None = None, most_differing: int = 50) -> Comparison:
    """Raises JobError where there is nothing to compare, or for a baseline that is no group."""
    if not cases.groups:
        raise JobError("no item has an outcome yet, so there is nothing to compare")
    first = _baseline(cases.groups, baseline)
    order = [first, *(number for number in range(len(cases.groups)) if number != first)]
    folded = fold(cases)
    shared = folded.group_by("case").len().filter(pl.col("len") > 1)
    differ = differing(folded, cases, order, most=most_differing)
    return Comparison(
        by=cases.by,
        baseline=cases.groups[first],
        groups=[_group(cases, folded, number) for number in order],
        scores=cases.scores,
        standings=[_standing(cases, folded, score, number) for score in cases.scores for number in order],
        matches=[_match(cases, folded, score, (number, first)) for score in cases.scores for number in order[1:]],
        differing=differ.shown,
        differing_cases=differ.count,
        shared_cases=len(shared),
        unfinished=cases.unfinished,
    )


def _baseline(groups: Sequence[str], asked: str | None) -> int:
    if asked is None:
        return 0
    if asked not in groups:
        near = difflib.get_close_matches(asked, groups, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (found: {', '.join(groups)})"
        raise JobError(f"--baseline {asked}: no such group{hint}")
    return groups.index(asked)


def fold(cases: Cases) -> pl.DataFrame:
    """A row for each case of each group, repeats by their mean, in an order that the same items always have."""
    names = [f"{SCORE}{name}" for name in cases.scores]
    return (
        cases.items.group_by("group", "case")
        .agg(
            pl.len().alias("items"),
            pl.col("succeeded").sum(),
            pl.col("said").drop_nulls().unique().sort().alias("said"),
            pl.col("said").count().alias("answers"),
            pl.struct("run", "row").sort_by("run", "row").first().alias("first"),
            *(pl.col(name).mean() for name in names),
            *(pl.col(name).var().alias(f"{_VARIANCE}{name}") for name in names),
        )
        .sort("group", "case")
    )


def _group(cases: Cases, folded: pl.DataFrame, number: int) -> Group:
    items = cases.items.filter(pl.col("group") == number)
    repeated = folded.filter((pl.col("group") == number) & (pl.col("answers") > 1))
    latency = items.filter("succeeded")["latency_s"].drop_nulls()
    return Group(
        name=cases.groups[number],
        items=len(items),
        cases=items["case"].n_unique(),
        succeeded=int(items["succeeded"].sum()),
        repeated=len(repeated),
        alike=int((repeated["said"].list.len() == 1).sum()),
        sent=int(items["sent"].sum()),
        cost_usd=None if items["unpriced"].any() else float(items["cost_usd"].sum()),
        tokens_per_item=_mean(items["tokens"]),
        latency_p50_s=latency.quantile(0.5, "linear"),
        latency_p95_s=latency.quantile(0.95, "linear"),
    )


def _standing(cases: Cases, folded: pl.DataFrame, score: str, number: int) -> Standing:
    values = _scored(folded, score, number)["value"]
    unscored = cases.items.filter(pl.col("group") == number)[f"{SCORE}{score}"].null_count()
    variance = _mean(folded.filter(pl.col("group") == number)[f"{_VARIANCE}{SCORE}{score}"])
    return Standing(
        score=score,
        group=cases.groups[number],
        cases=len(values),
        unscored=unscored,
        mean=_mean(values),
        interval=mean_interval(values),
        spread=None if variance is None else math.sqrt(variance),
    )


def _scored(folded: pl.DataFrame, score: str, number: int) -> pl.DataFrame:
    """The cases of a group that have a score, and what it is."""
    value = pl.col(f"{SCORE}{score}").alias("value")
    return folded.filter(pl.col("group") == number).select("case", value).drop_nulls("value")


def _match(cases: Cases, folded: pl.DataFrame, score: str, groups: tuple[int, int]) -> Match:
    one, other = (_scored(folded, score, number) for number in groups)
    own, base = (folded.filter(pl.col("group") == number).select("case") for number in groups)
    if not len(own.join(base, on="case", how="semi")):
        return _unpaired(score, cases.groups[groups[0]], one["value"], other["value"])
    both = one.join(other, on="case", suffix="_base").sort("case")
    apart = both["value"] - both["value_base"]
    won, lost = int((apart > TIE).sum()), int((apart < -TIE).sum())
    return Match(
        score=score,
        group=cases.groups[groups[0]],
        paired=True,
        cases=len(both),
        alone=len(one) + len(other) - 2 * len(both),
        difference=_settled(_mean(apart)),
        interval=mean_interval(apart),
        won=won,
        lost=lost,
        tied=len(both) - won - lost,
    )


def _unpaired(score: str, group: str, one: pl.Series, other: pl.Series) -> Match:
    mean, base = _mean(one), _mean(other)
    return Match(
        score=score,
        group=group,
        paired=False,
        cases=len(one) + len(other),
        alone=len(one) + len(other),
        difference=None if mean is None or base is None else _settled(mean - base),
        interval=difference_interval(one, other),
        won=None,
        lost=None,
        tied=None,
    )


def _settled(difference: float | None) -> float | None:
    """Without the dust of adding up."""
    return 0.0 if difference is not None and abs(difference) <= TIE else difference


def _mean(values: pl.Series) -> float | None:
    """None of no values; polars' type of a mean has what no column of numbers gives."""
    known = values.drop_nulls()
    return float(known.sum()) / len(known) if len(known) else None
