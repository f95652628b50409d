"""What each settled item used and cost, to foretell others by."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.store.spending import bought
from batchrunner.store.view import longs, read_ahead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.store.ledger import Ledger
    from batchrunner.store.view import Source, View

_TOKENS = ("prompt_tokens", "completion_tokens")
_COLUMNS = (
    "item_id", "started_at", "sequence", "status", "origin", "cost_usd",
    *_TOKENS, "failed_prompt_tokens", "failed_completion_tokens",
)  # fmt: skip
_ENOUGH = 10_000
"""About how many rows are told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """All that was used for a settled row: each of its turns, and attempts that failed but were billed."""

    row: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """None where it is not known."""


def spent_on(view: View, ledger: Ledger) -> list[Spent]:
    """What the settled rows of `ledger` used, by row; of very many, some from everywhere.

    Copies are left out, and what was answered without telling its tokens.
    """
    numbers, rows = _settled_numbers(ledger)
    settled, before = [], []
    for source, table in read_ahead(view.sources, _COLUMNS):
        before.append(table.filter(pc.equal(table["status"], "unfinished")))
        found = bought(_with_rows(source, table, numbers, rows))
        settled.append(found.take(pa.array(range(0, found.num_rows, max(1, len(rows) // _ENOUGH)), pa.int64())))
    if not settled:
        return []
    ends = pa.concat_tables(settled)
    spent = [_spent(records) for records in _records(ends, pa.concat_tables(before))]
    return sorted((each for each in spent if each is not None), key=attrgetter("row"))


def _settled_numbers(ledger: Ledger) -> tuple[pa.Array, pa.Array]:
    """The numbers of the outcomes that settle a row, in ascending order, and the row of each."""
    mask = pa.Array.from_buffers(pa.uint8(), ledger.rows, [None, pa.py_buffer(ledger.settled_mask())])
    rows = pc.indices_nonzero(mask).cast(pa.int64())
    numbers = pa.Array.from_buffers(pa.int64(), ledger.rows, [None, pa.py_buffer(ledger.sequence)]).take(rows)
    order = pc.sort_indices(numbers)
    return numbers.take(order), rows.take(order)


def _with_rows(source: Source, table: pa.Table, numbers: pa.Array, rows: pa.Array) -> pa.Table:
    """Of a source's outcomes those that settle a row, each with that row."""
    sought = longs(numbers)
    start, end = bisect_left(sought, source.first_sequence), bisect_left(sought, source.last_sequence + 1)
    places = pc.index_in(table["sequence"].combine_chunks(), numbers.slice(start, end - start))
    table = table.append_column("row", rows.slice(start, end - start).take(places))
    return table.filter(pc.is_valid(places))


def _records(ends: pa.Table, before: pa.Table) -> list[list[dict[str, Any]]]:
    """Each outcome with the answers of its item that others followed: those have records of their own."""
    followed = defaultdict(list)
    for record in before.filter(pc.is_in(before["item_id"], ends["item_id"].combine_chunks())).to_pylist():
        followed[record["item_id"], record["started_at"]].append(record)
    return [[end, *followed.get((end["item_id"], end["started_at"]), ())] for end in ends.to_pylist()]


def _spent(records: Sequence[dict[str, Any]]) -> Spent | None:
    """The sum; None where an answer came without its tokens."""
    if any(record[name] is None for record in records for name in _TOKENS if record["status"] != "rejected"):
        return None
    costs = [record["cost_usd"] for record in records]
    return Spent(
        row=records[0]["row"],
        prompt_tokens=_sum(records, "prompt_tokens", "failed_prompt_tokens"),
        completion_tokens=_sum(records, "completion_tokens", "failed_completion_tokens"),
        cost_usd=None if None in costs else sum(costs),
    )


def _sum(records: Sequence[dict[str, Any]], *names: str) -> int:
    return sum(record[name] or 0 for record in records for name in names)
