"""What a comparison comes to, in sentences: who is ahead in what, how sure that is, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner.report import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.evaluate import Comparison, Interval, Match

MOST_SAID = 6
"""So many scores have a sentence of their own."""
FEW_CASES = 20
MANY_MATCHES = 5
LONGEST = 60
ALIKE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A match, told from the side of who is ahead."""

    ahead: str
    behind: str
    match: Match
    difference: float
    low: float | None
    high: float | None
    won: int | None
    lost: int | None


def verdict(comparison: Comparison) -> list[str]:
    """The first sentence says who is ahead in the first score, and what that costs."""
    return [*_compared(comparison), *_doubts(comparison)]


def _compared(comparison: Comparison) -> Iterator[str]:
    if len(comparison.groups) < 2:
        yield f"There is one group only, {short(comparison.baseline)}: nothing to hold it against."
        return
    leads = [lead for score in comparison.scores if (lead := lead_in(comparison, score)) is not None]
    if not leads:
        none = "no score in common" if comparison.scores else "no scores; [[score]] in the job makes them"
        yield f"The groups have {none}. Outcomes, cost, latency and answers are compared."
        yield from _without_scores(comparison)
        return
    for number, lead in enumerate(leads[:MOST_SAID]):
        spent = "" if number else _spent(comparison, lead.ahead, lead.behind)
        yield f"{_said(lead)}{spent}."
    yield from _slower(comparison, leads[0].ahead, leads[0].behind)


def lead_in(comparison: Comparison, score: str) -> Lead | None:
    """The group that stands best against the baseline, or the baseline against the one that comes closest to it."""
    known = [(match.difference, match) for match in comparison.matches_of(score) if match.difference is not None]
    if not known:
        return None
    difference, match = max(known, key=lambda pair: pair[0])
    ends = None if match.interval is None else (match.interval.low, match.interval.high)
    if difference >= 0:
        return _lead(match, (match.group, comparison.baseline), difference, ends, (match.won, match.lost))
    turned = None if ends is None else (-ends[1], -ends[0])
    return _lead(match, (comparison.baseline, match.group), -difference, turned, (match.lost, match.won))


def _lead(
    match: Match,
    names: tuple[str, str],
    difference: float,
    ends: tuple[float, float] | None,
    cases: tuple[int | None, int | None],
) -> Lead:
    low, high = ends or (None, None)
    won, lost = cases
    return Lead(
        ahead=names[0], behind=names[1], match=match, difference=difference, low=low, high=high, won=won, lost=lost
    )


def _said(lead: Lead) -> str:
    score, ahead, behind = short(lead.match.score), short(lead.ahead), short(lead.behind)
    by, *ends = digits(lead.difference, *(end for end in (lead.low, lead.high) if end is not None))
    if lead.difference == 0:
        told = f"{ahead} and {behind} are level in {score}" + (f" ({ends[0]} to {ends[1]})" if ends else "")
    elif not ends:
        told = f"{ahead} is ahead of {behind} in {score} by {by}, of too few cases for an interval"
    elif lead.match.interval is not None and lead.match.interval.excludes_zero:
        told = f"{ahead} is ahead of {behind} in {score} by {by} ({ends[0]} to {ends[1]})"
    else:
        doubt = f"but the interval of the difference includes zero ({ends[0]} to {ends[1]})"
        told = f"{ahead} is ahead of {behind} in {score} by {by}, {doubt}"
    if lead.won is None or lead.lost is None:
        return told
    return f"{told}, {numbers.count(lead.won, 'case')} won, {lead.lost:,} lost, {lead.match.tied or 0:,} tied"


def _spent(comparison: Comparison, ahead: str, behind: str) -> str:
    one, other = (comparison.group(name).cost_per_item_usd for name in (ahead, behind))
    if one is None or other is None:
        return "; what an item costs is unknown"
    return f"; it costs {times(one, other, 'much')}" if other else ""


def _slower(comparison: Comparison, ahead: str, behind: str) -> Iterator[str]:
    one, other = (comparison.group(name).latency_p50_s for name in (ahead, behind))
    if one is not None and other:
        seconds = f"p50 {numbers.seconds(one)} against {numbers.seconds(other)}"
        yield f"{short(ahead)} takes {times(one, other, 'long')} ({seconds})."


def _without_scores(comparison: Comparison) -> Iterator[str]:
    base = comparison.groups[0]
    for group in comparison.groups[1 : MOST_SAID + 1]:
        shares = [numbers.share(each.succeeded, each.items) for each in (group, base)]
        succeeded = f"{short(group.name)} succeeded in {shares[0]} of its items, {short(base.name)} in {shares[1]}"
        yield f"{succeeded}{_spent(comparison, group.name, base.name)}."
        yield from _slower(comparison, group.name, base.name)


def _doubts(comparison: Comparison) -> Iterator[str]:
    """What the numbers alone do not say."""
    known = [match for match in comparison.matches if match.cases]
    if any(not match.paired for match in comparison.matches):
        yield (
            "Where two groups have no case in common nothing can be won or lost by case: the interval of their "
            "difference comes from drawing each group by itself."
        )
    fewest = min((match.cases for match in known), default=FEW_CASES)
    if fewest < FEW_CASES:
        told = "intervals are rough" if fewest > 1 else "there is no interval"
        yield f"{numbers.count(fewest, 'case')} to compare {'is' if fewest == 1 else 'are'} few: {told}."
    intervals = sum(match.interval is not None for match in known)
    if intervals >= MANY_MATCHES:
        yield f"Of {intervals} intervals at 95 % about one in twenty leaves out zero by chance."
    if comparison.unfinished:
        yield f"{numbers.count(comparison.unfinished, 'item')} without an outcome yet left out."


def times(one: float, other: float, what: str) -> str:
    """How often `other` goes into `one`: "1.8 times as much"."""
    ratio = one / other
    if abs(ratio - 1) < ALIKE:
        return f"about as {what}"
    if 0.9 < ratio < 1.1:
        return f"{ratio:.2f} times as {what}"
    return f"{ratio:,.0f} times as {what}" if ratio >= 10 else f"{ratio:.2g} times as {what}"


def digits(*values: float) -> list[str]:
    """Numbers of one kind with as many decimals as the smallest of them needs, from two to four."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    most = 2 if smallest >= 0.01 else 3 if smallest >= 0.001 else 4
    return [f"{round(value, most) + 0.0:,.{most}f}" for value in values]


def interval(found: Interval | None) -> str:
    return numbers.NONE if found is None else " to ".join(digits(found.low, found.high))


def short(name: str) -> str:
    """A name that may be of any length, in a sentence."""
    return numbers.cut(name, LONGEST)


def names(groups: Sequence[str], most: int = 4) -> str:
    """Groups in a title."""
    told = ", ".join(short(name) for name in groups[:most])
    return f"{told} and {len(groups) - most} more" if len(groups) > most else told
