"""Groups held against each other, as sections of a report: which is ahead, in what, at which cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.report import numbers
from batchrunner.report.sections import Card, Document, Figure, Grid, Section, Span, Spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchrunner.evaluate import Comparison, Differing, Group, Interval, Mean, Pairing
    from batchrunner.report.digest import Texts


CARDS, ROWS = 20, 50
FEW_GROUPS = 4


def contrast(
    comparison: Comparison, *, names: Sequence[str], texts: Mapping[tuple[int, int], Texts], warnings: Sequence[str]
) -> Document:
    """The report of a comparison. `names` are the runs'; `texts` are by run and row, of the cases that differ."""
    return Document(
        title=f"Comparing {', '.join(names)}",
        state=f"{comparison.baseline} is the baseline",
        tone="",
        figures=[*_figures(comparison)],
        facts=[*_facts(comparison, names), *(("note", warning) for warning in warnings)],
        sections=[*sections(comparison), _differing(comparison, texts)],
    )


def sections(comparison: Comparison) -> Iterator[Section]:
    """The groups, what they scored, and how each stands against the baseline."""
    yield _groups(comparison)
    if any(mean.cases for mean in comparison.means):
        yield _scores(comparison)
    if any(pairing.cases for pairing in comparison.pairings):
        yield _against(comparison)


def _figures(comparison: Comparison) -> Iterator[Figure]:
    items = sum(group.items for group in comparison.groups)
    cases = max(group.cases for group in comparison.groups)
    yield Figure(name="groups", value=f"{len(comparison.groups):,}", note=_kind(comparison))
    yield Figure(name="cases", value=f"{cases:,}", note=numbers.count(items, "item"))
    for score in comparison.scores[:4]:
        best = max(_of(comparison.means, score), key=lambda mean: -1e300 if mean.mean is None else mean.mean)
        if best.mean is not None:
            yield Figure(name=f"highest {score}", value=_number(best.mean), note=best.group)


def _facts(comparison: Comparison, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield "run" if len(names) == 1 else "runs", ", ".join(names)
    yield "baseline", comparison.baseline
    if comparison.by:
        yield "groups", f"by {comparison.by}"


def _kind(comparison: Comparison) -> str:
    return f"by {comparison.by}" if comparison.by else "one for each run"


def _groups(comparison: Comparison) -> Section:
    grid = Grid(
        caption="What each came to",
        heads=(comparison.by or "run", "items", "succeeded", "cost", "an item", "tokens", "p50", "p95"),
        aligns="*>>>>>>>",
        rows=[_group_row(group) for group in comparison.groups],
        in_terminal=ROWS,
    )
    return Section(title="Groups", said=[*_verdicts(comparison)], grids=[grid])


def _group_row(group: Group) -> tuple[str, ...]:
    return (
        group.name,
        f"{group.items:,}",
        numbers.share(group.succeeded, group.items),
        numbers.money(group.cost_usd),
        numbers.money(group.item_usd),
        f"{group.tokens / max(1, group.items):,.0f}",
        numbers.seconds(group.latency_p50_s),
        numbers.seconds(group.latency_p95_s),
    )


def _verdicts(comparison: Comparison) -> Iterator[str]:
    """In sentences: who is ahead of the baseline in what, how sure that is, and what it costs."""
    for score in comparison.scores:
        if not any(mean.cases for mean in _of(comparison.means, score)):
            yield f"No item has the score {score} yet."
        pairings = [pairing for pairing in _of(comparison.pairings, score) if pairing.difference is not None]
        if pairings:
            yield _verdict(comparison, max(pairings, key=lambda pairing: pairing.difference or 0.0))
    if not comparison.paired and len(comparison.groups) > 1:
        yield (
            "No case is in several groups, so nothing is won or lost by case; "
            "intervals of differences take the groups as drawn on their own."
        )
    failed = [f"{group.failed:,} of {group.name}" for group in comparison.groups if group.failed]
    if failed and comparison.scores:
        yield f"Items that failed have no score and are left out of the means: {', '.join(failed)}."


def _verdict(comparison: Comparison, best: Pairing) -> str:
    """Of the group that is furthest above the baseline, or least below it."""
    difference, interval = best.difference or 0.0, best.interval
    base, score = comparison.baseline, best.score
    surely = interval is not None and interval.excludes_zero
    if abs(difference) < 1e-12:
        said = f"{best.group} and {base} score the same in {score}"
    elif not surely:
        side = "ahead of" if difference > 0 else "behind"
        said = f"{best.group} is {side} {base} in {score} by {_number(abs(difference))}, which may be chance"
    elif difference > 0:
        said = f"{best.group} is ahead of {base} in {score} by {_number(difference)}"
    else:
        said = f"{base} is ahead of all others in {score}, of {best.group} by {_number(-difference)}"
    if interval is not None and interval.high > interval.low:
        low, high = sorted((interval.low, interval.high)) if difference >= 0 else (-interval.high, -interval.low)
        said += f" ({_number(low)} to {_number(high)})"
    if best.won is not None:
        said += f", {numbers.count(best.won, 'case')} won, {best.lost:,} lost, {best.tied:,} tied"
    return f"{said}{_cost_of(comparison, best.group)}."


def _cost_of(comparison: Comparison, name: str) -> str:
    by_name = {group.name: group for group in comparison.groups}
    one, other = by_name[name].item_usd, by_name[comparison.baseline].item_usd
    if not one or not other:
        return ""
    ratio = one / other
    if 0.95 < ratio < 1.05:
        return "; both cost about the same"
    return f"; {name} costs {ratio:.2g} times as much" if ratio > 1 else f"; {name} costs {ratio * 100:.0f} % as much"


def _scores(comparison: Comparison) -> Section:
    charts = [
        Spans(
            title=f"{score}: mean and 95 % interval",
            unit=score,
            spans=[_span(mean, comparison.baseline) for mean in _of(comparison.means, score) if mean.mean is not None],
        )
        for score in comparison.scores
    ]
    grid = Grid(
        caption="Mean scores over cases, with 95 % bootstrap intervals",
        heads=("score", comparison.by or "run", "cases", "mean", "95 % interval"),
        aligns="<*>>>",
        rows=[
            (mean.score, mean.group, f"{mean.cases:,}", _number(mean.mean), _between(mean.interval))
            for mean in comparison.means
            if mean.cases
        ],
        in_terminal=ROWS,
    )
    return Section(title="Scores", charts=[chart for chart in charts if chart.spans], grids=[grid])


def _span(mean: Mean, baseline: str) -> Span:
    interval = mean.interval
    return Span(
        name=mean.group,
        mean=mean.mean or 0.0,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        tone="" if mean.group == baseline else "good",
    )


def _against(comparison: Comparison) -> Section:
    heads = ["score", comparison.by or "run", "difference", "95 % interval"]
    by_case = comparison.paired
    grid = Grid(
        caption=f"Against {comparison.baseline}",
        heads=[*heads, *(("won", "lost", "tied") if by_case else ("items",))],
        aligns="<*>>" + (">>>" if by_case else ">"),
        rows=[_pairing_row(pairing) for pairing in comparison.pairings if pairing.cases],
        in_terminal=ROWS,
    )
    return Section(title="Against the baseline", grids=[grid])


def _pairing_row(pairing: Pairing) -> tuple[str, ...]:
    counts = [pairing.won, pairing.lost, pairing.tied]
    last = [f"{count:,}" for count in counts if count is not None] or [f"{pairing.cases:,}"]
    difference = numbers.NONE if pairing.difference is None else _signed(pairing.difference)
    return pairing.score, pairing.group, difference, _between(pairing.interval), *last


def _differing(comparison: Comparison, texts: Mapping[tuple[int, int], Texts]) -> Section:
    title, cases = "Cases that differ", comparison.differing
    if not cases:
        none = "The groups agree on every case." if comparison.paired else "No case is in several groups."
        return Section(title=title, said=[none])
    groups = [group.name for group in comparison.groups]
    heads = ["case", *groups[:FEW_GROUPS]]
    grid = Grid(
        caption=f"{', '.join(comparison.scores)} by case, those furthest apart first"
        if comparison.scores
        else "Different outcomes first, then different answers",
        heads=heads,
        aligns="*" + "<" * (len(heads) - 1),
        rows=[(each.case, *(_scored(each, group) for group in groups[:FEW_GROUPS])) for each in cases[:ROWS]],
        left_out=f"and {comparison.differing_cases - len(cases[:ROWS]):,} more"
        if comparison.differing_cases > ROWS
        else "",
    )
    whole = max(group.cases for group in comparison.groups)
    said = f"The groups do not agree on {comparison.differing_cases:,} of {numbers.count(whole, 'case')}."
    if len(groups) > FEW_GROUPS:
        said += f" The table has the first {FEW_GROUPS} of {len(groups):,} groups."
    cards = [_card(each, groups, texts) for each in cases[:CARDS]] if texts else []
    return Section(title=title, said=[said], grids=[grid], cards=cards)


def _scored(case: Differing, group: str) -> str:
    if group not in case.items:
        return numbers.NONE
    return ", ".join(_number(scores[group]) for scores in case.scores.values()) or "differs"


def _card(case: Differing, groups: Sequence[str], texts: Mapping[tuple[int, int], Texts]) -> Card:
    found = [(group, case.items[group], texts.get(case.items[group])) for group in groups if group in case.items]
    prompts = [told.prompt for _, _, told in found if told and told.prompt]
    same = len(set(prompts)) == 1
    shown: list[tuple[str, str]] = [("asked", prompts[0])] if same else []
    for group, _, told in found:
        scores = ", ".join(f"{name} {_number(each[group])}" for name, each in case.scores.items())
        heading = f"{group} ({scores})" if scores else group
        if told and told.prompt and not same:
            shown.append((f"{group}, asked", told.prompt))
        shown.append((heading, (told and told.reply) or "no answer"))
    return Card(title=case.case, facts=[numbers.count(len(found), "group")], texts=shown)


def _of(found: Sequence[Mean | Pairing], score: str) -> list:  # type: ignore[type-arg]
    return [each for each in found if each.score == score]


def _number(value: float | None) -> str:
    return numbers.NONE if value is None else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _between(interval: Interval | None) -> str:
    return numbers.NONE if interval is None else f"{interval.low:.3g} to {interval.high:.3g}"
