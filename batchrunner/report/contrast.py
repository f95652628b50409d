"""Runs and groups held against each other: their numbers read in one pass, the texts of a few cases in another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.evaluate import Run, compare, gather_cases
from batchrunner.report.texts import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchrunner.assemble import Table
    from batchrunner.evaluate import Comparison
    from batchrunner.report.texts import Texts

VARIANT = "variant"
MOST_ANSWERS = 8
"""Of a case, on a page, the answers of so many groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A run to be compared: what it is called, where it is, and its table."""

    name: str
    place: str
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A comparison, ready to be written for people."""

    runs: Sequence[Compared]
    comparison: Comparison
    texts: Mapping[tuple[int, int], Texts]
    """By run and row, of the cases that differ; empty where they were not asked for."""

    @property
    def warnings(self) -> list[str]:
        several = len(self.runs) > 1
        return [f"{run.name}: {each}" if several else each for run in self.runs for each in run.table.warnings]


def contrast(
    runs: Sequence[Compared], *, by: str | None, baseline: str | None, most_differing: int, texts: bool
) -> Contrast:
    """Compare runs, or the groups of one; with `texts` also what the cases that differ were asked and answered.

    Raises JobError where they cannot be compared as asked, RunError.
    """
    comparison = grouped(runs, by=by, baseline=baseline, most_differing=most_differing)
    return Contrast(runs=runs, comparison=comparison, texts=_texts(runs, comparison) if texts else {})


def grouped(
    runs: Sequence[Compared], *, by: str | None, baseline: str | None = None, most_differing: int = 0
) -> Comparison:
    """The numbers alone."""
    given = [_by_axis(run, by) for run in runs]
    try:
        return compare(gather_cases(given, by), baseline=baseline, most_differing=most_differing)
    except JobError as error:
        # A column that is missing may be one of an input that is gone.
        raise JobError(*error.faults, *(warning for run in runs for warning in run.table.warnings)) from None


def _by_axis(run: Compared, by: str | None) -> Run:
    """The run, with a column for the values of a matrix's field where it is that which groups."""
    table, schema = run.table, run.table.schema
    names = {variant: chosen[by] for variant, chosen in table.variants.items() if by in chosen}
    if by is None or not names or VARIANT not in schema.names:
        return Run(name=run.name, schema=schema, batches=table.batches())
    kept = [field for field in schema if field.name != by]
    batches = (
        pa.RecordBatch.from_arrays(
            [
                *(batch[field.name] for field in kept),
                pa.array([names.get(each) for each in batch[VARIANT].to_pylist()], pa.string()),
            ],
            names=[*(field.name for field in kept), by],
        )
        for batch in table.batches()
    )
    return Run(name=run.name, schema=pa.schema([*kept, (by, pa.string())]), batches=batches)


def default_by(runs: Sequence[Compared]) -> str | None:
    """The column that groups where none was named: `variant` for one run; several are groups themselves."""
    return VARIANT if len(runs) == 1 and VARIANT in runs[0].table.schema.names else None


def named(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """What each run is called: by its name, where that leaves doubt by its directory, else as it was given."""
    folders = [PurePath(place).name or place for place in places]
    for found in (names, folders):
        if max(Counter(found).values()) == 1 and all(found):
            return [*found]
    return [*places]


def _texts(runs: Sequence[Compared], comparison: Comparison) -> dict[tuple[int, int], Texts]:
    wanted: dict[int, set[int]] = {}
    for run, row in _places(comparison):
        wanted.setdefault(run, set()).add(row)
    found = {run: texts_of(runs[run].table, rows) for run, rows in wanted.items()}
    return {(run, row): texts for run, rows in found.items() for row, texts in rows.items()}


def _places(comparison: Comparison) -> Iterator[tuple[int, int]]:
    for case in comparison.differing:
        yield from ((seen.run, seen.row) for seen in case.seen[:MOST_ANSWERS])
