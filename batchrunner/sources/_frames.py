"""Rows in memory, kept where a run can read them again."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_frame(rows: Any, path: Path, *, before: Callable[[], None] = lambda: None) -> Path:
    """Keep a table of polars, pandas or pyarrow, or a list of dicts, as Parquet at `path`, unless it is there as it is.

    `before` is called before other rows are replaced, and may raise. Raises JobError for what is none of them, or
    cannot be kept there.
    """
    data = _parquet(_table(rows))
    try:
        if path.exists():
            if path.stat().st_size == data.size and path.read_bytes() == data.to_pybytes():
                return path
            before()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        raise JobError(f"{path}: {(error.strerror or str(error)).lower()}; give an out that can be written") from error
    return path


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink, compression="zstd")
    except pa.ArrowException as error:
        raise JobError(f"rows: cannot be kept as Parquet: {str(error)[:200]}") from error
    return sink.getvalue()


def _table(rows: Any) -> pa.Table:
    try:
        if isinstance(rows, pa.Table):
            return rows
        if hasattr(rows, "to_arrow"):  # polars
            return rows.to_arrow()
        if isinstance(rows, list):
            return _of_dicts(rows)
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError) as error:
        raise JobError(
            f"rows: expected a table of polars, pandas or pyarrow, or a list of dicts; got {type(rows).__name__}: "
            f"{str(error)[:200]}"
        ) from error


def _of_dicts(rows: list[Any]) -> pa.Table:
    """With the keys of all rows; pyarrow by itself looks at the first alone."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})
