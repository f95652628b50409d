"""Tables to be compared, as a run's results are, without a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrunner.evaluate import Run, compare, gather_cases
from batchrunner.report import Compared, contrast
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from batchrunner.evaluate import Comparison
    from batchrunner.report import Contrast

EXACT = pa.struct([("exact", pa.float64())])


def item(case: str, variant: str | None, exact: float | None = None, **fields: Any) -> dict[str, Any]:
    """An item of a matrix that has succeeded; with a score of None, one that nobody scored."""
    known = {
        "item_id": f"{case}/{variant}/{fields.get('repeat', 1)}", "case_id": case, "variant": variant, "repeat": 1,
        "status": "succeeded", "text": f"{variant} says {case}", "origin": "sent", "attempts": 1, "cost_usd": 0.001,
        "latency_s": 0.5, "prompt_tokens": 40, "completion_tokens": 10,
        "scores": None if exact is None else {"exact": exact},
    }  # fmt: skip
    return known | fields


def schema(*, scores: pa.DataType | None = EXACT, cases: bool = True) -> pa.Schema:
    matrix = [("case_id", pa.string()), ("variant", pa.string()), ("repeat", pa.int64())]
    found = OUTCOME
    for name, kind in matrix if cases else matrix[1:2]:
        found = found.append(pa.field(name, kind))
    return found if scores is None else found.append(pa.field("scores", scores))


@dataclass(slots=True)
class Rows:
    """What a reader asks of a run's table, from memory."""

    table: pa.Table
    warnings: tuple[str, ...] = ()
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[Collection[int]] = field(default_factory=list)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def view(self) -> Rows:
        return self

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield from self.table.to_batches(max_chunksize=7)

    def outcomes(self, columns: Sequence[str], *, rows: Collection[int]) -> Iterator[pa.RecordBatch]:
        self.asked.append(rows)
        kept = [{**dict.fromkeys(columns), **row} for row in self.table.to_pylist() if row["row"] in rows]
        yield pa.RecordBatch.from_pylist([{name: row[name] for name in columns} for row in kept])

    def sent_all(self, rows: Collection[int]) -> dict[int, str]:
        return {row: f'{{"messages": [{{"role": "user", "content": "ask {row}"}}]}}' for row in rows}


def rows(items: Sequence[Mapping[str, Any]], kind: pa.Schema | None = None) -> Rows:
    return Rows(pa.Table.from_pylist([{"row": n, **each} for n, each in enumerate(items)], schema=kind or schema()))


def compared(
    *runs: Rows | Sequence[Mapping[str, Any]], by: str | None = "variant", baseline: str | None = None
) -> Comparison:
    """The figures of these runs, called A, B and so on."""
    tables = [each if isinstance(each, Rows) else rows(each) for each in runs]
    given = [
        Run(name=chr(65 + number), schema=table.schema, batches=table.batches()) for number, table in enumerate(tables)
    ]
    return compare(gather_cases(given, by), baseline=baseline)


def contrasted(*runs: Rows | Sequence[Mapping[str, Any]], by: str | None = "variant", texts: bool = True) -> Contrast:
    tables = [each if isinstance(each, Rows) else rows(each) for each in runs]
    given = [
        Compared(name=chr(65 + number), place=f"runs/{number}", table=table)  # type: ignore[arg-type]
        for number, table in enumerate(tables)
    ]
    return contrast(given, by=by, baseline=None, most_differing=10, texts=texts)
