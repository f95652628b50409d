"""Which rows are the input: those for which an expression is true, numbered as if there were no others."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources._identity import found, json_bytes
from batchrunner.sources.base import Block, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from batchrunner.records import Item

_AT = "input.where"
_TYPES: dict[str, Any] = {
    "int64": pl.Int64, "double": pl.Float64, "bool": pl.Boolean, "string": pl.String, "json": pl.String,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A polars SQL expression over the columns of the rows. Where it is null, a row is left out."""

    text: str
    condition: pl.Expr
    names: Sequence[str]
    """Columns that it reads."""

    def check(self, columns: Mapping[str, str], schema: pa.Schema | None) -> None:
        """Raises JobError where it cannot be told of rows with these columns."""
        if not columns:
            return  # An input without rows may have no columns.
        for name in self.names:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f" (found: {found(columns)})"
                raise JobError(f"{_AT}: no column {name!r}{hint}")
        empty = _empty(schema, self.names) if schema is not None else _frame([], self.names, columns)
        kind = self._told(empty).dtype
        if kind != pl.Boolean:
            raise JobError(f"{_AT}: {self.text!r} is {kind}; expected a condition such as \"status = 'open'\"")

    def matching(self, blocks: Iterable[Block], wanted: Reading) -> Iterator[Block]:
        """Of all rows of a file those that are wanted of the matching ones. A row that cannot be read is not judged."""
        row = wanted.first
        for block in blocks:
            if row >= wanted.stop:
                return
            mask = self._mask(block, wanted.types)
            start, row = row, row + sum(mask)
            kept = [at for at, matches in enumerate(mask) if matches]
            chosen = [
                (at, number) for number, at in enumerate(kept, start) if number < wanted.stop and wanted.wants(number)
            ]
            items = [replace(block.items[at], row=number) for at, number in chosen]
            table = None if block.table is None else block.table.take(pa.array([at for at, _ in chosen], pa.int64()))
            size = block.size_bytes * len(items) // max(1, len(block.items))
            yield Block(items=items, end=min(row, wanted.stop), size_bytes=size, table=table)

    def _mask(self, block: Block, types: Mapping[str, str]) -> list[bool]:
        if not block.items:
            return []
        if block.table is not None:
            frame = pl.from_arrow(block.table.select([name for name in self.names if name in block.table.schema.names]))
            assert isinstance(frame, pl.DataFrame)
            absent = [pl.lit(None).alias(name) for name in self.names if name not in frame.columns]
            frame = frame.with_columns(absent) if absent else frame
        else:
            frame = _frame(block.items, self.names, types)
        told = self._told(frame)
        matches = told.to_list() if len(told) == len(block.items) else told.to_list() * len(block.items)
        return [item.fault is not None or bool(match) for item, match in zip(block.items, matches, strict=True)]

    def _told(self, frame: pl.DataFrame) -> pl.Series:
        try:
            return frame.select(self.condition.alias("it")).to_series()
        except pl.exceptions.PolarsError as error:
            raise JobError(f"{_AT}: {self.text!r}: {_short(error)}") from None


def where(text: str) -> Where:
    """Raises JobError for what is no expression."""
    try:
        condition = pl.sql_expr(text)
        names = [*dict.fromkeys(condition.meta.root_names())]
    except pl.exceptions.PolarsError as error:
        raise JobError(
            f"{_AT}: {text!r}: {_short(error)}; expected a polars SQL expression such as \"status = 'open'\""
        ) from None
    return Where(text=text, condition=condition, names=names)


def _frame(items: Sequence[Item], names: Sequence[str], types: Mapping[str, str]) -> pl.DataFrame:
    """The columns that are read, of the types that they have in the whole input."""
    columns = {}
    for name in names:
        kind = types.get(name, "string")
        values = [item.columns.get(name) for item in items]
        if kind == "json":
            values = [None if value is None else json_bytes(value).decode() for value in values]
        try:
            columns[name] = pl.Series(name, values, dtype=_TYPES[kind])
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise JobError(
                f"{items[0].file}: changed since it was checked (column {name!r}: {_short(error)})"
            ) from None
    return pl.DataFrame(columns) if columns else pl.DataFrame({"": [None] * len(items)})


def _empty(schema: pa.Schema, names: Sequence[str]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.schema([schema.field(name) for name in names]).empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
