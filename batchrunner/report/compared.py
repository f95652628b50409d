"""The report of a comparison: who is ahead, the groups, their scores, and the cases that they do not agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.report import cells, numbers
from batchrunner.report.contrast import MOST_ANSWERS
from batchrunner.report.sections import Card, Document, Figure, Grid, Section
from batchrunner.report.standings import groups, matches, scores
from batchrunner.report.verdict import digits, lead_in, names, short, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.evaluate import Comparison, Differing, Group, Seen
    from batchrunner.report.contrast import Contrast

LONGEST = 80
MOST_COLUMNS, LONGEST_HEAD = 4, 14
"""Of so few groups each has a column in the table of cases."""


def comparison_document(contrast: Contrast) -> Document:
    """What is told of a comparison, in the order of what people ask first."""
    comparison = contrast.comparison
    one = contrast.runs[0].name if len(contrast.runs) == 1 else names([run.name for run in contrast.runs])
    by = f" by {short(comparison.by)}" if comparison.by else ""
    sections = [
        Section(title="Which is ahead", said=verdict(comparison)),
        groups(comparison),
        scores(comparison) if comparison.scores else None,
        matches(comparison),
        _cases(contrast),
    ]
    return Document(
        title=f"{short(one)}{by}",
        state=f"{numbers.count(len(comparison.groups), 'group')}, {numbers.count(_items(comparison), 'item')} compared",
        tone="",
        figures=[*_figures(comparison)],
        facts=[*_facts(contrast)],
        sections=[section for section in sections if section is not None],
    )


def _items(comparison: Comparison) -> int:
    return sum(group.items for group in comparison.groups)


def _figures(comparison: Comparison) -> Iterator[Figure]:
    lead = lead_in(comparison, comparison.scores[0]) if comparison.scores else None
    if lead is not None and lead.difference:
        sure = lead.match.interval is not None and lead.match.interval.excludes_zero
        value = f"+{digits(lead.difference)[0]}"
        ends = "" if lead.low is None or lead.high is None else f", {' to '.join(digits(lead.low, lead.high))}"
        note = f"{numbers.cut(lead.ahead, 24)}{ends}"
        yield Figure(name=numbers.cut(lead.match.score, 24), value=value, note=note, tone="good" if sure else "warn")
    if lead is not None and lead.won is not None:
        note = f"cases, {lead.match.tied or 0:,} tied"
        yield Figure(name="won and lost", value=f"{lead.won:,} : {lead.lost or 0:,}", note=note)
    if len(comparison.groups) > 1:
        names = (comparison.groups[1].name, comparison.baseline) if lead is None else (lead.ahead, lead.behind)
        yield from _ratios(*map(comparison.group, names))
    if comparison.shared_cases:
        note = f"of {comparison.shared_cases:,} in several groups"
        yield Figure(name="cases that differ", value=f"{comparison.differing_cases:,}", note=note)


def _ratios(one: Group, other: Group) -> Iterator[Figure]:
    """What an item of one group costs and takes, as often as that of the other."""
    whose = f"{numbers.cut(one.name, 24)} to {numbers.cut(other.name, 24)}"
    pairs = {
        "cost of an item": (one.cost_per_item_usd, other.cost_per_item_usd),
        "median latency": (one.latency_p50_s, other.latency_p50_s),
    }
    for name, (value, base) in pairs.items():
        told = f"{value / base:.2g} : 1" if value is not None and base else numbers.UNKNOWN
        yield Figure(name=name, value=told, note=whose)


def _facts(contrast: Contrast) -> Iterator[tuple[str, str]]:
    for run in contrast.runs:
        yield "run", f"{run.name}, {run.place}" if len(contrast.runs) > 1 else run.place
    yield "baseline", contrast.comparison.baseline
    for warning in contrast.warnings:
        yield "note", warning


def _cases(contrast: Contrast) -> Section | None:
    comparison = contrast.comparison
    title, shown = "Cases that differ", comparison.differing
    if len(comparison.groups) < 2:
        return None
    if not comparison.shared_cases:
        return Section(title=title, said=["No case is in more than one group, so none can differ."])
    if not shown:
        what = "scores" if comparison.scores else "outcomes and answers"
        return Section(title=title, said=[f"None: the {what} of all groups agree."])
    count = f"{comparison.differing_cases:,} of {numbers.count(comparison.shared_cases, 'case')} differ"
    cards = [_card(contrast, case) for case in shown] if contrast.texts else []
    return Section(title=title, said=[f"{count}."], grids=[_table(comparison)], cards=cards)


def _table(comparison: Comparison) -> Grid:
    """A column for each group where these are few; else who is lowest and who is highest."""
    few, several = len(comparison.groups) <= MOST_COLUMNS, len(comparison.scores) > 1
    middle = (
        [cells.cut_within(group.name, LONGEST_HEAD) for group in comparison.groups] if few else ["lowest", "highest"]
    )
    score, answers = ["score"] if several else [], [] if comparison.scores else ["answers"]
    what = "whose scores are furthest apart" if comparison.scores else "with other outcomes or answers"
    hidden = comparison.differing_cases - len(comparison.differing)
    return Grid(
        caption=f"The cases {what}",
        heads=("case", *score, *middle, *answers),
        aligns="*" + "<" * len(score) + (">" if few else "<") * len(middle) + "<" * len(answers),
        rows=[
            (
                numbers.cut(case.case, LONGEST),
                *([case.score or ""] if several else []),
                *(_each(comparison, case) if few else _ends(case)),
                *(["differ" if case.answers_differ else "agree"] if answers else []),
            )
            for case in comparison.differing
        ],
        left_out=f"and {numbers.count(hidden, 'more case')}" if hidden > 0 else "",
    )


def _each(comparison: Comparison, case: Differing) -> Iterator[str]:
    seen = {each.group: each for each in case.seen}
    for group in comparison.groups:
        found = seen.get(group.name)
        yield numbers.NONE if found is None else _told(found, case.score)


def _ends(case: Differing) -> Iterator[str]:
    known = [each for each in case.seen if case.score is None or each.scores[case.score] is not None]
    ranked = sorted(known, key=lambda each: _value(each, case.score))
    for each in (ranked[0], ranked[-1]):
        yield f"{_told(each, case.score)} {short(each.group)}"


def _value(seen: Seen, score: str | None) -> float:
    if score is None:
        return seen.succeeded / seen.items
    return seen.scores[score] or 0.0


def _told(seen: Seen, score: str | None) -> str:
    """A case's score in a group, or what came of it there."""
    if score is not None:
        value = seen.scores[score]
        return numbers.NONE if value is None else digits(value)[0]
    if seen.items > 1:
        return f"{seen.succeeded} of {seen.items} good"
    return "succeeded" if seen.succeeded else "failed"


def _card(contrast: Contrast, case: Differing) -> Card:
    """The case as the first group that has it was asked, and the answers of all."""
    shown = case.seen[:MOST_ANSWERS]
    found = [(seen, contrast.texts.get((seen.run, seen.row))) for seen in shown]
    asked = next(((seen, texts.prompt) for seen, texts in found if texts is not None and texts.prompt), None)
    prompt = [] if asked is None else [(f"prompt, as sent for {short(asked[0].group)}", asked[1])]
    answers = [(_answer(seen), (texts.reply if texts else None) or "(no answer)") for seen, texts in found]
    more = len(case.seen) - len(shown)
    facts = [f"{short(case.score)} furthest apart"] if case.score and len(contrast.comparison.scores) > 1 else []
    facts += [f"and {numbers.count(more, 'more group')}"] if more else []
    return Card(title=case.case, facts=facts, texts=[*prompt, *answers])


def _answer(seen: Seen) -> str:
    known = {name: value for name, value in seen.scores.items() if value is not None}
    told = [f"{short(name)} {digits(value)[0]}" for name, value in known.items()]
    if seen.items > 1:
        told.append(f"the first of {seen.items} items")
    return f"{short(seen.group)}: {', '.join(told) or _told(seen, None)}"
