"""Rows of a run's table by a polars SQL expression, batch by batch."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import polars as pl

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa


def matching(batches: Iterable[pa.RecordBatch], where: str | None) -> Iterator[pl.DataFrame]:
    """Frames of the rows for which `where` is true; every row without one. Raises JobError for a bad expression."""
    condition = None if where is None else _expression(where)
    for batch in batches:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        if condition is not None:
            frame = _filtered(frame, condition, where or "")
        if len(frame):
            yield frame


def _expression(where: str) -> pl.Expr:
    try:
        return pl.sql_expr(where)
    except pl.exceptions.PolarsError as error:
        raise JobError(
            f"--where {where!r}: {_short(error)}; expected a polars SQL expression such as \"status = 'exhausted'\""
        ) from None


def _filtered(frame: pl.DataFrame, condition: pl.Expr, where: str) -> pl.DataFrame:
    try:
        return frame.filter(condition)
    except pl.exceptions.ColumnNotFoundError as error:
        unknown = re.search(r'"([^"]+)"', str(error))
        name = unknown[1] if unknown else str(error).split()[-1]
        near = difflib.get_close_matches(name, frame.columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (found: {', '.join(frame.columns)})"
        raise JobError(f"--where {where!r}: no column {name!r}{hint}") from None
    except pl.exceptions.PolarsError as error:
        raise JobError(f"--where {where!r}: {_short(error)}") from None


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
