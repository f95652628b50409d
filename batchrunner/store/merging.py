"""Finished shard runs as one table: their results put together in the order of the input, in bounded memory."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrunner import __version__
from batchrunner.errors import RunError
from batchrunner.store import files, lock, parts
from batchrunner.store.results import check_target, marked, put_results, results_match
from batchrunner.store.view import longs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchrunner.store.shards import ShardRun

HELD_BYTES = 16 * 2**20
"""About how much of all shards together is held in memory at once."""
MOST_ROWS = 8192
_NAMED = 5
"""So many of several are named in a message."""


def merge_shards(shards: Sequence[ShardRun], target: Path, *, overwrite: bool = False) -> int:
    """Put the results of all shards at `target`, whole and durable; give the number of rows.

    Raises RunError for rows that are missing or there twice, StoreError when the disk refuses, and when something
    that is no merged file of this job is at `target`, unless told to overwrite it.
    """
    first = shards[0]
    if target.resolve() in {shard.results.resolve() for shard in shards}:
        raise RunError(f"{target} is a shard's own; give another --out")
    with files.preparing(target.parent):
        files.make_directory(target.parent)
    with _sole_writer(target):
        check_target(target, run_id=first.owner, overwrite=overwrite)
        marks = _marks_of(shards)
        if results_match(target, marks):
            return first.commit.rows
        with ExitStack() as stack:
            opened = [stack.enter_context(_open(shard.results)) for shard in shards]
            schema = _schema(shards, opened)
            mode = int(first.manifest["job"]["output"]["mode"], 8)
            return put_results(target, marked(schema, first.owner, marks), _merged(shards, opened, schema), mode=mode)


def _marks_of(shards: Sequence[ShardRun]) -> dict[str, Any]:
    job, commit = shards[0].manifest["job"], shards[0].commit
    return {
        "job": job["name"],
        "version": __version__,
        "params": job["params"],
        "fingerprint": dict(commit.input["fingerprint"]),
        "keep": job["output"].get("keep"),
        "rows": commit.rows,
        "shards": [[one.commit.run_id, one.commit.epoch, one.commit.folded_through] for one in shards],
    }


@contextmanager
def _sole_writer(target: Path) -> Iterator[None]:
    """Two merges at once would write the same file beside the target."""
    path = target.with_name(f".{target.name}.lock")
    with files.preparing(path):
        held = lock.acquire(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # While it is held: who waits for it sees that it has gone and makes its own.
        held.release()


def _open(path: Path) -> pq.ParquetFile:
    with _reading(path):
        return pq.ParquetFile(path, page_checksum_verification=True, buffer_size=2**16, pre_buffer=False)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"{path}: {parts.reason(error)}; remove it and give the shard's command again: results are made anew"
        ) from error


def _schema(shards: Sequence[ShardRun], opened: Sequence[pq.ParquetFile]) -> pa.Schema:
    schemas = [file.schema_arrow.remove_metadata() for file in opened]
    for shard, schema in zip(shards, schemas, strict=True):
        if not schema.equals(schemas[0]):
            other = sorted(f"{field.name}: {field.type}" for field in {*schema} ^ {*schemas[0]})
            raise RunError(
                f"{shard.results}: other columns than {shards[0].results} ({', '.join(other[:_NAMED])}); "
                "give each shard's command again with the same output.keep"
            )
    return schemas[0]


def _merged(
    shards: Sequence[ShardRun], opened: Sequence[pq.ParquetFile], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """All rows in order. Raises RunError unless each row of the input is there once."""
    rows, next_row = shards[0].commit.rows, 0
    flows = [_Flow(shard.results, file, len(shards)) for shard, file in zip(shards, opened, strict=True)]
    while alive := [flow for flow in flows if flow.fill()]:
        upto = min(flow.last_row for flow in alive)
        table = pa.Table.from_batches([flow.take(upto) for flow in alive], schema)
        table = table.take(pc.sort_indices(table["row"])).combine_chunks()
        _check_rows(table["row"], next_row, shards)
        next_row += table.num_rows
        yield from table.to_batches()
    if next_row != rows:
        raise _gap(next_row, rows, shards)


class _Flow:
    """A shard's rows in order, a batch at a time."""

    def __init__(self, path: Path, file: pq.ParquetFile, shards: int) -> None:
        self._batches = _batches(path, file, shards)
        self._held: pa.RecordBatch | None = None

    def fill(self) -> bool:
        """Have rows at hand; False when there are none left."""
        while not self._held:
            self._held = next(self._batches, None)
            if self._held is None:
                return False
        return True

    @property
    def last_row(self) -> int:
        assert self._held is not None
        return int(self._held["row"][-1].as_py())

    def take(self, upto: int) -> pa.RecordBatch:
        """The rows at hand that are not behind `upto`."""
        assert self._held is not None
        count = bisect_right(longs(self._held["row"]), upto)
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken


def _batches(path: Path, file: pq.ParquetFile, shards: int) -> Iterator[pa.RecordBatch]:
    footer = file.metadata
    with _reading(path):
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            mean_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
            rows = min(MOST_ROWS, max(1, HELD_BYTES // shards // mean_bytes))
            yield from file.iter_batches(batch_size=rows, row_groups=[number], use_threads=False)


def _check_rows(rows: pa.ChunkedArray, first: int, shards: Sequence[ShardRun]) -> None:
    """Raise RunError unless these are the rows from `first` on, each once."""
    if not len(rows) or (
        rows[0].as_py() == first
        and rows[-1].as_py() == first + len(rows) - 1
        and pc.count_distinct(rows).as_py() == len(rows)
    ):
        return
    for expected, row in enumerate(rows.to_pylist(), first):
        if row > expected:
            raise _gap(expected, row, shards)
        if row < expected:
            where = " and ".join(str(shard.results) for shard in shards if _has(shard, row))
            raise RunError(
                f"row {row} is there twice, in {where}; restore those shards from a backup, "
                "or begin them anew with --fresh"
            )


def _has(shard: ShardRun, row: int) -> bool:
    return bool(pq.read_table(shard.results, columns=["row"], filters=[("row", "=", row)]).num_rows)


def _gap(start: int, stop: int, shards: Sequence[ShardRun]) -> RunError:
    rows = f"row {start} is" if stop == start + 1 else f"rows {start:,} to {stop - 1:,} are"
    limited = [f"{one.index}/{one.shards}" for one in shards if one.manifest["selection"]["stop"] is not None]
    if limited:
        named = ", ".join(limited[:_NAMED]) + (" ..." if limited[_NAMED:] else "")
        return RunError(
            f"{rows} in no shard: --limit kept shards {named} from all that is theirs; "
            "give their commands without it, then merge"
        )
    return RunError(
        f"{rows} in no shard, of {shards[0].commit.rows:,} rows of the input; give each shard's command again"
    )
