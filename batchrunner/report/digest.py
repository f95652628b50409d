"""Everything a report says of a run, gathered from its files in bounded memory, live or dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from batchrunner.report.diary import Diary, read_diary
from batchrunner.report.figures import COLUMNS, Figures, Shown
from batchrunner.report.texts import TEXTS, Texts, prompt_of, reply_of
from batchrunner.report.timeline import Timeline, allowances, timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batchrunner.assemble import Table


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


def _texts(table: Table, shown: Sequence[Shown]) -> dict[int, Texts]:
    replies: dict[int, str | None] = {}
    for number in sorted({item.source for item in shown}):
        rows = {item.row for item in shown if item.source == number}
        found = table.view.read_current(table.view.sources[number], TEXTS)
        chosen = found.filter(pc.is_in(found["row"], pc.cast(list(rows), "int64")))
        replies |= {row["row"]: reply_of(row) for row in chosen.to_pylist()}
    sent = table.sent_all(replies)
    return {row: Texts(prompt=prompt_of(sent.get(row)), reply=reply) for row, reply in replies.items()}
