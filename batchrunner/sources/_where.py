"""Which rows are the input: those for which an expression is true, numbered as if there were no others."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources._hive import partition_value
from batchrunner.sources._identity import found
from batchrunner.sources.base import ARROW_TYPES, Block, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from batchrunner.records import Item

_AT = "input.where"
_OF_SEVERAL = frozenset(
    {"Agg", "Correlation", "Explode", "Filter", "Over", "Quantile", "Range", "Rank", "Selector", "SubPlan", "Window"}
)
"""What polars calls expressions that look at several rows; they would see a block of them, and not all."""
_NAMES_AND_TEXTS = frozenset({"Alias", "Column", "String"})
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TIMES = re.compile(r"\b(NOW\s*\(|TODAY\s*\(|CURRENT_(?:DATE|TIME|TIMESTAMP)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A polars SQL expression over the columns of the rows. Where it is null, a row is left out."""

    text: str
    condition: pl.Expr
    names: Sequence[str]
    """Columns that it reads."""
    parts: Sequence[pl.Expr] = ()
    """What all has to be true: the conditions that AND joins."""

    def check(self, columns: Mapping[str, str], schema: pa.Schema | None) -> None:
        """Raises JobError where it cannot be told of rows with these columns."""
        if not columns:
            return  # An input without rows may have no columns.
        for name in self.names:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f" (found: {found(columns)})"
                quotes = "; a text stands in single quotes" if f'"{name}"' in self.text else ""
                raise JobError(f"{_AT}: no column {name!r}{hint}{quotes}")
            if schema is None and columns[name] == "json":
                raise JobError(
                    f"{_AT}: column {name!r} holds lists, objects, or values of several kinds; expected one of text, "
                    "numbers, or true and false"
                )
        kinds = {name: ARROW_TYPES[columns[name]] if schema is None else schema.field(name).type for name in self.names}
        kind = self._told(
            pa.table({name: pa.array([], kind) for name, kind in kinds.items()} or {"": pa.nulls(0)})
        ).dtype
        if str(kind) != "Boolean":
            raise JobError(f"{_AT}: {self.text!r} is {kind}; expected a condition such as \"status = 'open'\"")

    def rules_out(self, partition: Mapping[str, str | None], types: Mapping[str, str]) -> bool:
        """Whether what a file's folders say is enough for none of its rows to match, whatever they hold."""
        table = None
        for part in self.parts:
            names = part.meta.root_names()
            if not names or not partition.keys() >= {*names}:
                continue
            table = table or _values_of(partition, types)
            if self._told(table, part).to_list() != [True]:
                return True
        return False

    def matching(self, blocks: Iterable[Block], wanted: Reading) -> Iterator[Block]:
        """Of all rows of a file those that are wanted of the matching ones. A row that cannot be read is not judged."""
        row = wanted.first
        for block in blocks:
            if row >= wanted.stop:
                return
            mask = self._mask(block, wanted)
            start, row = row, row + sum(mask)
            kept = [at for at, matches in enumerate(mask) if matches]
            chosen = [
                (at, number) for number, at in enumerate(kept, start) if number < wanted.stop and wanted.wants(number)
            ]
            items = [replace(block.items[at], row=number) for at, number in chosen]
            table = None if block.table is None else block.table.take(pa.array([at for at, _ in chosen], pa.int64()))
            size = block.size_bytes * len(items) // max(1, len(block.items))
            yield Block(items=items, end=min(row, wanted.stop), size_bytes=size, table=table)

    def _mask(self, block: Block, wanted: Reading) -> list[bool]:
        if not block.items:
            return []
        told = self._told(
            _values(block.items, self.names, wanted.types)
            if block.table is None
            else _columns(block.table, self.names, wanted.schema)
        )
        matches = told.to_list() if len(told) == len(block.items) else told.to_list() * len(block.items)
        if block.table is not None:
            return [*map(bool, matches)]  # A table's columns can be judged, whichever others were read with them.
        return [item.fault is not None or bool(match) for item, match in zip(block.items, matches, strict=True)]

    def _told(self, table: pa.Table, condition: pl.Expr | None = None) -> pl.Series:
        import polars as pl

        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        try:
            return frame.select((self.condition if condition is None else condition).alias("it")).to_series()
        except pl.exceptions.PolarsError as error:
            raise JobError(f"{_AT}: {self.text!r}: {_short(error)}") from None


def where(text: str) -> Where:
    """Raises JobError for what is no expression over single rows, or is another one at another time."""
    if (time := _TIMES.search(_COMMENT.sub("", _QUOTED.sub("", text)))) is not None:
        said = time[0].rstrip("( ")
        raise JobError(
            f"{_AT}: {said} would choose other rows each time; give the day as a parameter: '{{{{ params.ds }}}}'"
        )
    import polars as pl

    try:
        condition = pl.sql_expr(text)
        names = [*dict.fromkeys(condition.meta.root_names())]
        tree = json.loads(condition.meta.serialize(format="json"))
        parts = [pl.Expr.deserialize(StringIO(json.dumps(part)), format="json") for part in _joined_by_and(tree)]
    except pl.exceptions.PolarsError as error:
        raise JobError(
            f"{_AT}: {text!r}: {_short(error)}; expected a polars SQL expression such as \"status = 'open'\""
        ) from None
    if _looks_at_several(tree):
        raise JobError(f"{_AT}: {text!r}: expected a condition of single rows, got one that looks at several of them")
    return Where(text=text, condition=condition, names=names, parts=parts)


def _joined_by_and(tree: Any) -> Iterator[Any]:
    node = tree.get("BinaryExpr") if isinstance(tree, dict) else None
    if node is not None and node.get("op") in ("And", "LogicalAnd"):
        yield from _joined_by_and(node["left"])
        yield from _joined_by_and(node["right"])
    else:
        yield tree


def _values_of(partition: Mapping[str, str | None], types: Mapping[str, str]) -> pa.Table:
    values = {name: partition_value(text, types[name]) for name, text in partition.items()}
    return pa.table({name: pa.array([value], ARROW_TYPES[types[name]]) for name, value in values.items()})


def _looks_at_several(tree: Any, within: str = "") -> bool:
    if isinstance(tree, dict):
        return any(name in _OF_SEVERAL or _looks_at_several(inner, name) for name, inner in tree.items())
    if isinstance(tree, list):
        return any(_looks_at_several(inner, within) for inner in tree)
    return tree == "Len" and within not in _NAMES_AND_TEXTS


def _values(items: Sequence[Item], names: Sequence[str], types: Mapping[str, str]) -> pa.Table:
    """The columns that are read, of the types that they have in the whole input."""
    columns = {}
    for name in names:
        values = [item.columns.get(name) for item in items]
        try:
            # What names the cases of a matrix has no type of its own there: ids tell it, for none of them is null.
            columns[name] = pa.array(values, ARROW_TYPES[types[name]] if name in types else None)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise JobError(
                f"{items[0].file}: changed since it was checked (column {name!r}: {_short(error)})"
            ) from None
    return pa.table(columns or {"": pa.nulls(len(items))})


def _columns(table: pa.RecordBatch, names: Sequence[str], schema: pa.Schema | None) -> pa.Table:
    """The same of a table; a file may lack a column, or hold a narrower type than the whole input has."""
    columns = {}
    for name in names:
        known = schema.field(name).type if schema is not None and name in schema.names else None
        column = table.column(name) if name in table.schema.names else pa.nulls(table.num_rows, known or pa.null())
        columns[name] = column if known in (None, column.type) else column.cast(known, safe=False)
    return pa.table(columns or {"": pa.nulls(table.num_rows)})


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
