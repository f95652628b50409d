"""Outcomes put in the order of the input, whatever their number, in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from batchrunner.schema import OUTCOME, RECORD
from batchrunner.store import files, parts
from batchrunner.store.view import longs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from batchrunner.store.view import Source, View

BUCKET_BYTES = 6 * 2**20
"""About how much of the outcomes is held in memory at once."""

FROM_INPUT = ("item_id", "row", "input_file", "input_line")
"""Columns of a result that come from the input."""

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
_FAILED = ("failed_prompt_tokens", "failed_completion_tokens")
"""Of these null means none; of `_TOKENS` that nothing is known."""
_NO_TURNS = RECORD.empty_table().select(["item_id", "started_at", *_TOKENS, *_FAILED])
EXTRA_COSTS = pa.schema([("row", pa.int64()), ("cost_usd", pa.float64()), ("unknown", pa.bool_())])


class Join:
    """The current outcomes of a view, looked up by row of the input; a context manager.

    When they are more than a bucket holds, they are first dealt out by row into files below `scratch`,
    which is the system's directory for temporary files unless told.
    """

    def __init__(self, view: View, scratch: Path | None = None, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.view, self.scratch = view, Path(tempfile.gettempdir()) if scratch is None else scratch
        count = 1 + sum(_size_bytes(source) for source in view.sources) // bucket_bytes
        self.bucket_rows = max(1, -(-view.commit.rows // count))
        self._folder: Path | None = None
        self._held = -1
        self._table = RECORD.empty_table()
        self._extra, self._turns = _extra_costs(view), _turn_tokens(view)

    def __enter__(self) -> Self:
        if self.bucket_rows < self.view.commit.rows:
            with files.storing(self.scratch):
                self._folder = Path(tempfile.mkdtemp(prefix=".buckets-", suffix=".partial", dir=self.scratch))
                try:
                    self._deal_out(self._folder)
                except BaseException:
                    self._discard()
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def rows_of(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows of a batch of the input, in its order, each with its outcome; nulls where there is none."""
        buckets = pc.divide(batch["row"], self.bucket_rows)
        numbers = pc.unique(buckets).to_pylist()
        for number in numbers:
            rows = batch if len(numbers) == 1 else batch.filter(pc.equal(buckets, number))
            self._hold(number)
            at = pc.index_in(rows["row"], self._table["row"].combine_chunks())
            yield _merge(rows, self._table.take(at))

    def in_order(self, stop: int) -> Iterator[pa.RecordBatch]:
        """All outcomes of rows before `stop`, in the order of their rows."""
        for number in range(-(-stop // self.bucket_rows)):
            self._hold(number)
            table = self._table.take(pc.sort_indices(self._table["row"]))
            if stop < (number + 1) * self.bucket_rows:
                table = table.filter(pc.less(table["row"], stop))
            yield from table.combine_chunks().to_batches()

    def _hold(self, number: int) -> None:
        if self._held == number:
            return
        self._table = RECORD.empty_table()
        pieces = self._read(number) if self._folder else list(self.view.outcomes(RECORD.names))
        table = pa.Table.from_batches(pieces, RECORD).combine_chunks()
        rows = longs(self._extra["row"])
        start = bisect_left(rows, number * self.bucket_rows)
        stop = bisect_left(rows, (number + 1) * self.bucket_rows)
        table = with_extra_costs(table, self._extra.slice(start, stop - start))
        self._table, self._held = _with_turn_tokens(table, self._turns), number

    def _deal_out(self, folder: Path) -> None:
        for batch in self.view.outcomes(RECORD.names):
            buckets = pc.divide(batch["row"], self.bucket_rows)
            for number in pc.unique(buckets).to_pylist():
                piece = batch.filter(pc.equal(buckets, number))
                # One short stream each: a file per bucket held open would run out of handles.
                with (
                    (folder / str(number)).open("ab") as file,
                    pa.ipc.new_stream(file, RECORD, options=_PACKED) as out,
                ):
                    out.write_batch(piece)

    def _read(self, number: int) -> list[pa.RecordBatch]:
        batches: list[pa.RecordBatch] = []
        with suppress(FileNotFoundError), (self._folder or self.scratch).joinpath(str(number)).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            while file.tell() < size:
                batches += pa.ipc.open_stream(file)
        return batches

    def _discard(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")


def _size_bytes(source: Source) -> int:
    if source.table is not None:
        return int(source.table.nbytes)
    return parts.plain_bytes(source.path)


def _merge(rows: pa.RecordBatch, outcomes: pa.Table) -> pa.RecordBatch:
    kept = [name for name in rows.schema.names if name not in FROM_INPUT]
    fields = [*RECORD, *(rows.schema.field(name) for name in kept)]
    arrays = [
        rows[field.name].cast(field.type) if field.name in FROM_INPUT else outcomes[field.name].combine_chunks()
        for field in RECORD
    ]
    return pa.RecordBatch.from_arrays([*arrays, *(rows[name] for name in kept)], schema=pa.schema(fields))


def _extra_costs(view: View) -> pa.Table:
    """By row: what the superseded outcomes of its item cost, and whether the price of one is unknown."""
    if not _has_others(view):
        return EXTRA_COSTS.empty_table()
    superseded, current = [], []
    for source in view.sources:
        table = source.read(["item_id", "row", "cost_usd", "attempts", "sequence"])
        kept = view.keep_current(source, table)
        current.append(kept.select(["item_id", "row"]))
        old = table.filter(pc.invert(pc.is_in(table["sequence"], kept["sequence"].combine_chunks())))
        superseded.append(old.append_column("unknown", unpriced(old)).select(["item_id", "cost_usd", "unknown"]))
    return costs_by_row(pa.concat_tables(superseded), pa.concat_tables(current))


def costs_by_row(superseded: pa.Table, current: pa.Table) -> pa.Table:
    """What outcomes cost, by the row that their items have in `current`, as a table of `EXTRA_COSTS`.

    An item's answers may count for several rows, where it asks something else now: its costs are those of the last.
    """
    by_item = superseded.group_by("item_id").aggregate([("cost_usd", "sum"), ("unknown", "any")])
    rows = current.group_by("item_id").aggregate([("row", "max")])
    found = rows.join(by_item, "item_id", join_type="inner").rename_columns({"row_max": "row"}).sort_by("row")
    cost = pc.fill_null(found["cost_usd_sum"], 0.0)
    return pa.table({"row": found["row"], "cost_usd": cost, "unknown": found["unknown_any"]}, schema=EXTRA_COSTS)


def _has_others(view: View) -> bool:
    """Whether anything but the current outcomes was ever recorded."""
    return view.outcomes_recorded != view.commit.rows - view.ledger.unfinished


def _turn_tokens(view: View) -> pa.Table:
    """By conversation, which its item and its start name: the tokens of its answers but the last."""
    pieces = [_NO_TURNS]
    for source in view.sources if _has_others(view) else ():
        table = source.read([*_NO_TURNS.column_names, "status"])
        pieces.append(table.filter(pc.equal(table["status"], "unfinished")).drop_columns(["status"]))
    known = pc.ScalarAggregateOptions(skip_nulls=False)
    turns = pa.concat_tables(pieces).group_by(["item_id", "started_at"])
    return turns.aggregate([(name, "sum", known) for name in _TOKENS] + [(name, "sum") for name in _FAILED])


def _with_turn_tokens(table: pa.Table, turns: pa.Table) -> pa.Table:
    if not turns.num_rows:
        return table
    joined = table.select(["row", "item_id", "started_at"]).join(turns, ["item_id", "started_at"], join_type="inner")
    at = pc.index_in(table["row"], joined["row"].combine_chunks())
    for name in (*_TOKENS, *_FAILED):
        own, more = table[name], joined[f"{name}_sum"].take(at)
        summed = pc.add(own, more) if name in _TOKENS else pc.coalesce(pc.add(own, more), own, more)
        index = RECORD.get_field_index(name)
        table = table.set_column(index, RECORD.field(index), pc.if_else(pc.is_valid(at), summed, table[name]))
    return table


def unpriced(table: pa.Table) -> pa.ChunkedArray:
    """Which outcomes went over the wire at an unknown price."""
    return pc.and_(pc.is_null(table["cost_usd"]), pc.greater(pc.fill_null(table["attempts"], 0), 0))


def with_extra_costs(table: pa.Table, extra: pa.Table) -> pa.Table:
    """Outcomes with what superseded ones of their rows cost added, as a table of `EXTRA_COSTS` says it."""
    if not extra.num_rows:
        return table
    at = pc.index_in(table["row"], extra["row"].combine_chunks())
    more, unknown = extra["cost_usd"].take(at), extra["unknown"].take(at)
    summed = pc.add(pc.fill_null(table["cost_usd"], 0.0), more)
    known = pc.if_else(pc.or_(unknown, unpriced(table)), pa.scalar(None, pa.float64()), summed)
    cost = pc.if_else(pc.is_valid(at), known, table["cost_usd"])
    return table.set_column(table.schema.get_field_index("cost_usd"), OUTCOME.field("cost_usd"), cost)
