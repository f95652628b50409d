"""What a run has cost and how it has fared, over its whole life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.store.view import read_ahead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.store.view import Source, View

SUMMED = (
    "cost_usd",
    "prompt_tokens",
    "completion_tokens",
    "failed_prompt_tokens",
    "failed_completion_tokens",
    "possibly_billed",
)
_COUNTED = ("attempts", "status", "error_type", "finish_reason", "latency_s", "origin")
COPIED = ("reused", "duplicate", "reparsed")
"""Origins of outcomes that cost nothing here."""
_SAMPLE = 200_000
"""About how many outcomes quantiles are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The current items that ended in one way, and the first of them in input order."""

    status: str
    error_type: str
    items: int
    first_row: int
    first_id: str
    first_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums are over every outcome ever recorded, superseded and dropped ones included; None means nothing is known.

    Failures, `length` (answers cut by their token limit) and quantiles are of the current outcomes;
    the quantiles are of those that succeeded, and of a sample where there are very many.
    """

    outcomes: int
    possibly_billed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    failed_prompt_tokens: int | None
    failed_completion_tokens: int | None
    cost_usd: float | None
    cost_unknown: int
    """How many outcomes went over the wire at an unknown price."""
    length: int
    failures: tuple[Failure, ...]
    """The most frequent first."""
    completion_quantiles: Quantiles | None
    latency_quantiles: Quantiles | None


def totals(view: View) -> Totals:
    """Add up a run."""
    tally = _Tally(view)
    for source, table in read_ahead(view.sources, ["row", "sequence", *SUMMED, *_COUNTED]):
        tally.add_spent(table)
        tally.add_current(source, view.keep_current(source, table))
    return tally.result()


class _Tally:
    def __init__(self, view: View) -> None:
        self.view, self.stride = view, max(1, view.outcomes_recorded // _SAMPLE)
        self.outcomes = self.length = 0
        dropped = view.commit.dropped
        self.cost_unknown = dropped.get("cost_unknown", 0)
        self.sums: dict[str, Any] = {name: dropped.get(name) for name in SUMMED}
        self.failed: dict[tuple[str, str], _Failed] = {}
        self.completion_tokens: list[pa.Array] = []
        self.latency_s: list[pa.Array] = []

    def add_spent(self, table: pa.Table) -> None:
        self.outcomes += table.num_rows
        unpriced = pc.and_(pc.is_null(table["cost_usd"]), pc.greater(pc.fill_null(table["attempts"], 0), 0))
        self.cost_unknown += _count(unpriced)
        spent = bought(table)
        for name in SUMMED:
            found = pc.sum(spent[name]).as_py()
            if found is not None:
                self.sums[name] = (self.sums[name] or 0) + found

    def add_current(self, source: Source, table: pa.Table) -> None:
        self.length += _count(pc.equal(table["finish_reason"], "length"))
        succeeded = pc.equal(table["status"], "succeeded")
        self.add_sample(table.filter(succeeded))
        failed = table.filter(pc.invert(succeeded))
        if failed.num_rows:
            self.add_failed(source, failed)

    def add_sample(self, table: pa.Table) -> None:
        picked = table.take(pa.array(range(0, table.num_rows, self.stride), pa.int64()))
        self.completion_tokens.append(picked["completion_tokens"].drop_null().combine_chunks())
        self.latency_s.append(picked["latency_s"].drop_null().combine_chunks())

    def add_failed(self, source: Source, table: pa.Table) -> None:
        groups = table.group_by(["status", "error_type"]).aggregate([("row", "count"), ("row", "min")]).to_pylist()
        for group in groups:
            key = group["status"], group["error_type"] or ""
            new = _Failed(items=group["row_count"], first_row=group["row_min"], source=source)
            old = self.failed.get(key)
            self.failed[key] = new if old is None else old.joined(new)

    def result(self) -> Totals:
        nothing_known = not self.outcomes and not self.view.commit.dropped
        sums = dict.fromkeys(SUMMED, 0) if nothing_known else self.sums
        failures = (found.failure(self.view, *key) for key, found in self.failed.items())
        return Totals(
            outcomes=self.outcomes,
            cost_unknown=self.cost_unknown,
            length=self.length,
            failures=tuple(sorted(failures, key=lambda failure: (-failure.items, failure.first_row))),
            completion_quantiles=_quantiles(self.completion_tokens),
            latency_quantiles=_quantiles(self.latency_s),
            **{**sums, "possibly_billed": sums["possibly_billed"] or 0},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    items: int
    first_row: int
    source: Source

    def joined(self, other: _Failed) -> _Failed:
        first = min(self, other, key=lambda failed: failed.first_row)
        return _Failed(items=self.items + other.items, first_row=first.first_row, source=first.source)

    def failure(self, view: View, status: str, error_type: str) -> Failure:
        table = view.read_current(self.source, ["item_id", "error"])
        first = table.filter(pc.equal(table["row"], self.first_row)).slice(0, 1).to_pylist()[0]
        return Failure(
            status=status,
            error_type=error_type,
            items=self.items,
            first_row=self.first_row,
            first_id=first["item_id"],
            first_error=first["error"],
        )


def bought(table: pa.Table) -> pa.Table:
    """The outcomes without copies, on which nothing was spent here."""
    copied = pc.is_in(table["origin"], pa.array(COPIED))
    return table.filter(pc.invert(copied)) if pc.any(copied).as_py() else table


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _quantiles(pieces: Sequence[pa.Array]) -> Quantiles | None:
    if not any(len(piece) for piece in pieces):
        return None
    whole = pa.chunked_array(pieces)
    p50, p90, p95, p99 = pc.quantile(whole, q=[0.5, 0.9, 0.95, 0.99]).to_pylist()
    return Quantiles(p50=p50, p90=p90, p95=p95, p99=p99)
