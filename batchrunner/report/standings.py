"""The sections of a report that hold groups against each other: what they came to, scored, won and lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.report import numbers
from batchrunner.report.sections import Grid, Intervals, Section, Whisker
from batchrunner.report.verdict import digits, interval

if TYPE_CHECKING:
    from batchrunner.evaluate import Comparison, Group, Match, Standing

LONGEST = 80
MOST_CHARTS = 8
MOST_ROWS = 60
"""In a terminal: these are what was asked for."""


def groups(comparison: Comparison) -> Section:
    """What the items of each group came to: outcomes, cost, tokens, latency."""
    copied = sum(group.items - group.sent for group in comparison.groups)
    said = []
    if copied:
        said.append(f"What an item costs and takes is that of the items that were sent: {copied:,} were not.")
    if any(group.cost_usd is None for group in comparison.groups):
        said.append("The price of some items is not known; [prices] in the job can tell it.")
    repeated = any(group.repeated for group in comparison.groups)
    if repeated:
        said.append("Alike: of the cases with several answers in a group, those whose answers are all the same.")
    grid = Grid(
        caption=f"By {comparison.by or 'run'}",
        heads=(
            comparison.by or "run",
            *("items", "good", *(["alike"] if repeated else []), "cost", "an item", "tokens", "p50", "p95"),
        ),
        aligns="*>>>>>>>" + ">" * repeated,
        rows=[_group(group, repeated) for group in comparison.groups],
        in_terminal=MOST_ROWS,
    )
    return Section(title="Groups", said=said, grids=[grid])


def _group(group: Group, repeated: bool) -> tuple[str, ...]:
    tokens = group.tokens_per_item
    each = numbers.NONE if not group.sent else numbers.money(group.cost_per_item_usd)
    return (
        numbers.cut(group.name, LONGEST),
        f"{group.items:,}",
        numbers.share(group.succeeded, group.items),
        *([numbers.share(group.alike, group.repeated) if group.repeated else numbers.NONE] if repeated else []),
        numbers.money(group.cost_usd),
        each,
        numbers.NONE if tokens is None else f"{tokens:,.0f}",
        numbers.seconds(group.latency_p50_s),
        numbers.seconds(group.latency_p95_s),
    )


def scores(comparison: Comparison) -> Section:
    """What each group scored in the mean, and how sure that is."""
    if not comparison.scores:
        return Section(title="Scores", said=["The results have no scores; [[score]] in the job makes them."])
    several = len(comparison.scores) > 1
    said = ["The mean over cases, repeats of a case as one; 95 % by drawing the cases again. Higher is ahead."]
    spread = any(standing.spread is not None for standing in comparison.standings)
    if spread:
        said.append("Spread: the standard deviation within the cases of a group, that is between its repeats.")
    grid = Grid(
        caption="Scores by group",
        heads=(
            *(["score"] if several else []),
            *("group", "mean", "95 %", *(["spread"] if spread else []), "cases", "unscored items"),
        ),
        aligns=("<" if several else "") + "*>>>>" + ">" * spread,
        rows=[_standing(standing, several, spread) for standing in comparison.standings],
        in_terminal=MOST_ROWS,
    )
    charts = [_whiskers(comparison, score) for score in comparison.scores[:MOST_CHARTS]]
    if not several:
        said = [f"{comparison.scores[0]}: {said[0][0].lower()}{said[0][1:]}"]
    if any(standing.unscored for standing in comparison.standings):
        said.append("An item without a score counts nowhere; it is not a 0.")
    return Section(title="Scores", said=said, charts=[chart for chart in charts if chart.rows], grids=[grid])


def _standing(standing: Standing, several: bool, spread: bool) -> tuple[str, ...]:
    mean = numbers.NONE if standing.mean is None else digits(standing.mean)[0]
    return (
        *([numbers.cut(standing.score, LONGEST)] if several else []),
        numbers.cut(standing.group, LONGEST),
        mean,
        interval(standing.interval),
        *([numbers.NONE if standing.spread is None else digits(standing.spread)[0]] if spread else []),
        f"{standing.cases:,}",
        f"{standing.unscored:,}",
    )


def _whiskers(comparison: Comparison, score: str) -> Intervals:
    known = [
        (standing, standing.mean)
        for standing in comparison.standings
        if standing.score == score and standing.mean is not None
    ]
    rows = [
        Whisker(
            name=standing.group,
            value=mean,
            low=mean if standing.interval is None else standing.interval.low,
            high=mean if standing.interval is None else standing.interval.high,
        )
        for standing, mean in known
    ]
    base = next((row.value for row in rows if row.name == comparison.baseline), None)
    return Intervals(title=f"{numbers.cut(score, LONGEST)}: mean and 95 % interval", rows=rows, base=base)


def matches(comparison: Comparison) -> Section | None:
    """Every group against the baseline: the difference, and the cases won and lost; None where there is nothing."""
    if not comparison.matches:
        return None
    several = len(comparison.scores) > 1
    by_case = any(match.paired for match in comparison.matches)
    baseline = numbers.cut(comparison.baseline, LONGEST)
    heads = ("won", "lost", "tied", "in one only") if by_case else ("cases",)
    grid = Grid(
        caption=f"Less the score of {baseline}" + (", over the cases that both have" if by_case else ""),
        heads=(*(["score"] if several else []), "group", "difference", "95 %", *heads),
        aligns=("<" if several else "") + "*>>" + ">" * len(heads),
        rows=[_match(match, several, by_case) for match in comparison.matches],
        in_terminal=MOST_ROWS,
    )
    return Section(title="Won and lost", said=[f"Against {baseline}, the baseline."], grids=[grid])


def _match(match: Match, several: bool, by_case: bool) -> tuple[str, ...]:
    counts = (match.won, match.lost, match.tied, match.alone) if by_case else (match.cases,)
    difference = numbers.NONE if match.difference is None else digits(match.difference)[0]
    return (
        *([numbers.cut(match.score, LONGEST)] if several else []),
        numbers.cut(match.group, LONGEST),
        f"+{difference}" if (match.difference or 0) > 0 and difference.strip("0.") else difference,
        interval(match.interval),
        *(numbers.NONE if count is None else f"{count:,}" for count in counts),
    )
