"""Everything a report says of a run, gathered from its files in bounded memory, live or dead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from batchrunner.report.diary import Diary, read_diary
from batchrunner.report.figures import COLUMNS, Figures, Shown
from batchrunner.report.timeline import Timeline, allowances, timeline

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from batchrunner.assemble import Table

TEXTS = ("text", "reasoning", "refusal", "turns")
LONGEST = 100_000
"""Characters of a text that are kept until it is cut for where it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What an item was asked, and what came back; None where there is none, or it cannot be told any more."""

    prompt: str | None
    reply: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A run, ready to be written for people."""

    state: Mapping[str, Any]
    figures: Figures
    diary: Diary
    timeline: Timeline
    slowest: Sequence[Shown]
    failed: Sequence[Shown]
    texts: Mapping[int, Texts]
    """By row, for the slowest and failed items; empty where they were not asked for."""
    warnings: Sequence[str]

    @property
    def counts(self) -> dict[str, int]:
        """Items by outcome, those without one as `unfinished`."""
        found = {name: self.figures.statuses[name] for name in ("succeeded", "rejected", "exhausted")}
        return {**found, "unfinished": max(0, self.total - sum(found.values()))}

    @property
    def total(self) -> int:
        return max(int(self.state["items"]["total"]), sum(self.figures.statuses.values()))


def gather(table: Table, state: Mapping[str, Any], log: Path, *, texts: bool) -> Digest:
    """Read a run once; with `texts` also what the few items that are shown were asked and answered."""
    view, figures = table.view, Figures()
    stop = (state.get("selection") or {}).get("stop")
    for number, source in enumerate(view.sources):
        outcomes = view.read_current(source, COLUMNS)
        figures.add(outcomes if stop is None else outcomes.filter(pc.less(outcomes["row"], stop)), number)
    diary = read_diary(log)
    slowest, failed = figures.slowest, figures.samples()
    return Digest(
        state=state,
        figures=figures,
        diary=diary,
        timeline=timeline(figures.settled, diary, allowances(state, diary)),
        slowest=slowest,
        failed=failed,
        texts=_texts(table, [*slowest, *failed]) if texts else {},
        warnings=table.warnings,
    )


def texts_of(table: Table, rows: Collection[int]) -> dict[int, Texts]:
    """What some rows of a run were asked, and what came back."""
    replies: dict[int, str | None] = {}
    for batch in table.view.outcomes(["row", *TEXTS], rows=rows):
        replies |= {row["row"]: _reply(row) for row in batch.to_pylist()}
    return _told(table, replies)


def _texts(table: Table, shown: Sequence[Shown]) -> dict[int, Texts]:
    replies: dict[int, str | None] = {}
    for number in sorted({item.source for item in shown}):
        rows = {item.row for item in shown if item.source == number}
        found = table.view.read_current(table.view.sources[number], TEXTS)
        chosen = found.filter(pc.is_in(found["row"], pc.cast(list(rows), "int64")))
        replies |= {row["row"]: _reply(row) for row in chosen.to_pylist()}
    return _told(table, replies)


def _told(table: Table, replies: Mapping[int, str | None]) -> dict[int, Texts]:
    sent = table.sent_all(replies)
    return {row: Texts(prompt=_prompt(sent.get(row)), reply=reply) for row, reply in replies.items()}


def _reply(row: Mapping[str, Any]) -> str | None:
    turns = json.loads(row["turns"] or "[]")
    if turns:
        answers = (turn.get("text") or turn.get("refusal") or "" for turn in turns)
        return "\n".join(f"[{number}] {answer}" for number, answer in enumerate(answers, 1))[:LONGEST]
    found = row["text"] or row["refusal"] or row["reasoning"]
    return None if found is None else str(found)[:LONGEST]


def _prompt(body: str | None) -> str | None:
    """The messages of a request's body as a reader wants them; the body itself where it has none."""
    if body is None or body.startswith("nothing: "):
        return None  # A row that cannot be asked; its error says why.
    try:
        messages = json.loads(body)["messages"]
        return "\n".join(f"{each['role']}: {_content(each.get('content'))}" for each in messages)[:LONGEST]
    except (ValueError, KeyError, TypeError):
        return body[:LONGEST]


def _content(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
