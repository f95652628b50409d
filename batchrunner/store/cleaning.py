"""A run rid of what no longer counts, without forgetting what it has cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrunner.errors import RunError
from batchrunner.schema import PART
from batchrunner.store import commits, conversations, files, parts
from batchrunner.store.joining import costs_by_row, unpriced, with_extra_costs
from batchrunner.store.opening import FOLDERS
from batchrunner.store.results import OURS, RESULTS, metadata_of
from batchrunner.store.run import SEAL_BYTES
from batchrunner.store.spending import SUMMED, bought

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batchrunner.store.commits import Part
    from batchrunner.store.run import Run
    from batchrunner.store.view import Source, View

RowsOf = Callable[[Collection[str]], Mapping[str, int]]
"""Finds the rows of those item ids that the current input has."""

_LIGHT = ("item_id", "row", "status", "attempts", "started_at", "origin", *SUMMED, "sequence", "epoch")
_FACTS = ("item_id", "row", "attempts", "started_at", "cost_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What was dropped, and how large the run's parts were before and are now."""

    outcomes: int
    files: int
    bytes_before: int
    bytes_after: int


def clean(run: Run, rows_of: RowsOf, *, drop_responses: bool = False) -> Cleaned:
    """Keep the outcomes that count, and the answered turns of conversations that may go on.

    Superseded outcomes go, and those of rows that the input no longer has. What a row's dropped outcomes cost
    stays with the row, all else that was spent on them with the commit. A kill leaves the old parts or the new
    ones. Raises RunError, StoreError.
    """
    if run.commit.forgot_input:
        raise RunError(
            f"{run.directory}: salvaged, and its rows have not been matched since, so what counts is not known; give "
            "the run's command once, then clean again"
        )
    view, folder = run.view(), run.directory / "parts"
    before = sum(part.size_bytes for part in view.commit.parts)
    with files.storing(run.directory):
        kept = _Kept(view, rows_of)
        if kept.dropped or drop_responses:
            written = list(_rewrite(run, kept, drop_responses=drop_responses))
            run.replace_parts(written, dropped=kept.spent)
        gone = [*parts.unnamed(folder, run.commit), *commits.older(run.directory / "commits", run.commit)]
        for place in (run.directory, *(run.directory / name for name in FOLDERS)):
            gone += place.glob("*.damaged*")
        for path in gone:
            files.discard(path)
        if drop_responses:
            _drop_responses(run)
    after = sum(part.size_bytes for part in run.commit.parts)
    return Cleaned(outcomes=kept.dropped, files=len(gone), bytes_before=before, bytes_after=after)


class _Kept:
    """Which outcomes stay, and what is to be remembered of the others. Holds only the others."""

    def __init__(self, view: View, rows_of: RowsOf) -> None:
        self.view = view
        self.spent: dict[str, Any] = dict(view.commit.dropped)
        old = _tables(_others(view, source) for source in view.sources)
        items = old["item_id"].combine_chunks()
        counting = _tables(_of_items(view, source, items) for source in view.sources).select(_FACTS)
        self._turns = _turns(old, counting, rows_of)
        old = old.filter(pc.invert(pc.is_in(old["sequence"], self._turns["sequence"].combine_chunks())))
        self.dropped = old.num_rows
        self._extra = self._remember(old, counting)

    def of(self, source: Source) -> pa.Table:
        """What stays of a part, with the rows of the current input."""
        table = parts.read(source.path, PART.names)
        counting = with_extra_costs(self.view.keep_current(source, table), self._extra)
        turns = table.filter(pc.is_in(table["sequence"], self._turns["sequence"].combine_chunks()))
        at = pc.index_in(turns["sequence"], self._turns["sequence"].combine_chunks())
        turns = _with_column(turns, "row", self._turns["row"].take(at))
        whole = pa.concat_tables([counting.select(PART.names).cast(PART), turns.cast(PART)])
        return _with_column(whole, "epoch", pa.repeat(pa.scalar(self.view.commit.epoch, pa.int32()), whole.num_rows))

    def _remember(self, old: pa.Table, counting: pa.Table) -> pa.Table:
        """The costs of dropped outcomes by row where the row has another; all else goes to `spent`."""
        old = old.append_column("unknown", unpriced(old))
        has_row = pc.is_in(old["item_id"], counting["item_id"].combine_chunks())
        rowless = old.filter(pc.invert(has_row))
        for name in SUMMED:
            self._add(name, pc.sum((rowless if name == "cost_usd" else bought(old))[name]))
        self._add("cost_unknown", pc.sum(rowless["unknown"]))
        extra = costs_by_row(old.filter(has_row), counting.select(["item_id", "row"]))
        self._remember_known(extra, counting)
        return extra

    def _remember_known(self, extra: pa.Table, counting: pa.Table) -> None:
        """A row whose cost becomes unknown still has cost what is known of it."""
        rows = counting.take(pc.index_in(extra["row"], counting["row"].combine_chunks()))
        sent = pc.greater(pc.fill_null(rows["attempts"], 0), 0)
        known = pc.add(extra["cost_usd"], pc.fill_null(rows["cost_usd"], 0.0))
        unknown = pc.or_(extra["unknown"], unpriced(rows))
        self._add("cost_usd", pc.sum(known.filter(unknown)))
        self._add("cost_unknown", pc.sum(pc.and_(unknown, pc.invert(sent))))

    def _add(self, name: str, more: pa.Scalar) -> None:
        if more.as_py() is not None:
            self.spent[name] = (self.spent.get(name) or 0) + more.as_py()


def _others(view: View, source: Source) -> pa.Table:
    """What of a part does not count, without its texts."""
    table = source.read(_LIGHT)
    kept = view.keep_current(source, table)["sequence"].combine_chunks()
    return table.filter(pc.invert(pc.is_in(table["sequence"], kept)))


def _of_items(view: View, source: Source, items: pa.Array) -> pa.Table:
    """What of a part counts for these items."""
    kept = view.read_current(source, _LIGHT)
    return kept.filter(pc.is_in(kept["item_id"], items)).select(_LIGHT)


def _turns(old: pa.Table, counting: pa.Table, rows_of: RowsOf) -> pa.Table:
    """The answered turns that stay, by number, with the row that they are of now."""
    turns = old.filter(pc.equal(old["status"], "unfinished")).select(["item_id", "started_at", "sequence"])
    at = pc.index_in(turns["item_id"], counting["item_id"].combine_chunks())
    open_still = pc.greater(turns["sequence"], conversations.last_ends(old, turns["item_id"]))
    counts = pc.fill_null(pc.equal(turns["started_at"], counting["started_at"].take(at)), False)
    stays = pc.or_(open_still, counts)
    turns, rows = turns.filter(stays), counting["row"].take(at).filter(stays)
    if rows.null_count:
        begun = turns["item_id"].filter(pc.is_null(rows)).unique().to_pylist()
        known = rows_of(begun)
        found = pa.array([known.get(item_id) for item_id in turns["item_id"].to_pylist()], pa.int64())
        rows = pc.coalesce(rows, found)
    return turns.append_column("row", rows).filter(pc.is_valid(rows))


def _tables(pieces: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([PART.empty_table().select(_LIGHT), *(piece.select(_LIGHT) for piece in pieces)])


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), PART.field(name), values)


def _rewrite(run: Run, kept: _Kept, *, drop_responses: bool) -> Iterator[Part]:
    group: list[pa.Table] = []
    prefix = f"cleaned-{run.commit.successor().number:06d}-"
    for source in kept.view.sources:
        table = kept.of(source)
        if drop_responses:
            table = _with_column(table, "response", pa.nulls(table.num_rows, pa.string()))
        group.append(table)
        if sum(one.nbytes for one in group) >= SEAL_BYTES:
            yield from _part(run, group, prefix)
            group = []
    yield from _part(run, group, prefix)


def _part(run: Run, group: list[pa.Table], prefix: str) -> Iterator[Part]:
    table = pa.concat_tables([PART.empty_table(), *group])
    if table.num_rows:
        yield parts.write(run.directory / "parts", table, run.mode, prefix=prefix)


def _drop_responses(run: Run) -> None:
    path = run.directory / RESULTS
    if not path.exists():
        return
    if metadata_of(path).get(OURS) != run.run_id.encode():
        raise RunError(f"{path} was not written by this run; its raw replies are left alone")
    try:
        with pq.ParquetFile(path) as file:
            _write_without_responses(file, path, run.mode)
    except pa.ArrowException as error:
        raise RunError(f"{path}: {parts.reason(error)}; remove it and give the same command again") from error


def _write_without_responses(file: pq.ParquetFile, path: Path, mode: int) -> None:
    schema = file.schema_arrow
    at = schema.get_field_index("response")
    beside = files.beside_of(path)
    with os.fdopen(files.create_beside(path, mode), "wb") as out:
        with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                writer.write_table(table.set_column(at, schema.field(at), pa.nulls(table.num_rows, pa.string())))
        out.flush()
        files.sync_file(out.fileno())
    files.replace(beside, path)
