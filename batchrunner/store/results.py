"""The table people read: today's input joined with its outcomes, one row per item, in input order."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import StoreError
from batchrunner.schema import outcome_schema
from batchrunner.store import files
from batchrunner.store.joining import Join
from batchrunner.store.ledger import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batchrunner.store.view import View

RESULTS = "results.parquet"

OURS = b"batchrunner_run"
"""The metadata key that marks a results file as ours; its value is the run's id."""

_GROUP_BYTES = 8 * 2**20
_GROUP_ROWS = 2**16
_PAGE_ROWS = 64
"""After so many rows a page may end, so that of long texts a reader need not hold a thousand at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The columns of a table, some of them made of the answers."""

    schema: pa.Schema
    steps: Sequence[Callable[[pa.RecordBatch], pa.RecordBatch]]
    """Each adds some of those columns to results that lack them."""


def result_schema(kept: pa.Schema, *, has_turns: bool = False, derived: Iterable[pa.Field] = ()) -> pa.Schema:
    """The columns of a results table with these columns of the input kept, and these made of the answers."""
    return pa.schema([*outcome_schema(has_turns=has_turns), *kept, *derived])


def result_batches(
    view: View, rows: Iterable[pa.RecordBatch] | int, *, schema: pa.Schema | Derived, scratch: Path | None = None
) -> Iterator[pa.RecordBatch]:
    """The input's rows in the input's order, each with its current outcome; nulls where there is none.

    `schema` is a `result_schema`. `rows` are batches of the input with `row` (ascending), `item_id`, `input_file`,
    `input_line` and the columns to keep; or only their number, where `tell_all` says that outcomes know the rest.
    `cost_usd` is what the item cost in this run in all. `scratch` is a directory with room for the outcomes, should
    they not fit in memory; the system's own unless told.
    """
    columns, steps = (schema.schema, schema.steps) if isinstance(schema, Derived) else (schema, ())
    with Join(view, scratch) as join:
        found = (
            join.in_order(rows) if isinstance(rows, int) else (each for batch in rows for each in join.rows_of(batch))
        )
        for batch in found:
            for step in steps:
                batch = step(batch)
            yield batch.select(columns.names).cast(columns)


def read_frames(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Batches of a table, such as `result_batches` gives them, as one table in memory."""
    return pa.Table.from_batches([batch.select(schema.names).cast(schema) for batch in batches], schema)


def tell_all(view: View, rows: int) -> bool:
    """Whether the outcomes of the first rows say all that the input says of them, so that it need not be read.

    They do where each has one and none is of an earlier input or job, whose rows had other places.
    """
    if any(part.name.startswith("cleaned-") for part in view.commit.parts):
        return False  # Cleaning keeps the places that moved rows had before.
    return view.commit.carried is None and view.ledger.codes.count(NONE, 0, rows) == 0


def build_results(
    view: View,
    input_rows: Iterable[pa.RecordBatch] | int,
    target: Path,
    *,
    schema: pa.Schema | Derived,
    metadata: Mapping[str, Any],
    mode: int = 0o640,
    overwrite: bool = False,
) -> int:
    """Put the results at `target`, whole and durable; give the number of rows.

    `input_rows` are as `result_batches` takes them. Metadata that is no string is written as JSON. Raises StoreError
    when the disk refuses, and when something that is not this run's is at `target`, unless told to overwrite it.
    """
    check_target(target, run_id=view.run_id, overwrite=overwrite)
    batches = result_batches(view, input_rows, schema=schema, scratch=target.parent)
    columns = schema.schema if isinstance(schema, Derived) else schema
    return put_results(target, marked(columns, view.run_id, metadata), batches, mode=mode)


def put_results(target: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, mode: int) -> int:
    """Write a table at `target`, whole and durable; give the number of rows. Raises StoreError."""
    with files.storing(target):
        file = files.create_beside(target, mode)
        beside = files.beside_of(target)
        try:
            rows = _write(file, schema, batches)
        except BaseException:
            files.discard(beside)
            raise
        files.replace(beside, target)
    return rows


def marked(schema: pa.Schema, owner: str, metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema with the metadata of a results file that is `owner`'s."""
    return schema.with_metadata({OURS: owner.encode(), **_marks(metadata)})


def results_match(target: Path, metadata: Mapping[str, Any]) -> bool:
    """Whether whole results are at `target` that were built with exactly this metadata."""
    found = metadata_of(target)
    return OURS in found and {key: value for key, value in found.items() if key != OURS} == _marks(metadata)


def current_results(view: View) -> pq.ParquetFile | None:
    """The run's own results file, where it has every outcome that there is; else None."""
    target = view.directory / RESULTS
    found = metadata_of(target)
    wanted = {OURS: view.run_id.encode(), **_marks({"epoch": view.commit.epoch, "sequence": view.last_sequence})}
    return pq.ParquetFile(target) if all(found.get(key) == value for key, value in wanted.items()) else None


def same_owner(one: Path, other: Path) -> bool:
    """Whether both are results of the same run, or were merged of the same job."""
    return OURS in metadata_of(one) and metadata_of(one)[OURS] == metadata_of(other).get(OURS)


def check_target(target: Path, *, run_id: str, overwrite: bool = False) -> None:
    """Raise StoreError unless `target` is free, or a results file of this run, or may be overwritten."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{target} is not a regular file; remove it, or give another path")
    if not overwrite and metadata_of(target).get(OURS) != run_id.encode():
        raise StoreError(f"{target} was not written by this run; move it away, or replace it with --overwrite")


def _marks(metadata: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {
        key.encode(): value.encode() if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        for key, value in metadata.items()
    }


def metadata_of(path: Path) -> Mapping[bytes, bytes]:
    """The metadata of a results file; empty where it cannot be read."""
    try:
        found: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return found


def _write(file: int, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    rows = 0
    with os.fdopen(file, "wb") as out:
        with pq.ParquetWriter(
            out, schema, compression="zstd", write_page_checksum=True, write_batch_size=_PAGE_ROWS
        ) as writer:
            for group in _groups(batches):
                table = pa.Table.from_batches(group).cast(schema)
                writer.write_table(table)
                rows += table.num_rows
        out.flush()
        files.sync_file(out.fileno())
    return rows


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in row groups that are neither tiny nor too large to hold."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(one.nbytes for one in group) >= _GROUP_BYTES or sum(one.num_rows for one in group) >= _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
