"""Parquet: rows out of row groups, a batch at a time."""

from __future__ import annotations

import base64
import datetime
import math
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import BadRow, JobError
from batchrunner.records import Item
from batchrunner.sources._bytes import reading, seekable
from batchrunner.sources._identity import columns_id, given_id, id_names, json_bytes
from batchrunner.sources._schema import is_text
from batchrunner.sources.base import MAX_ROW_BYTES, Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchrunner.sources.base import File, Reading

_BATCH_BYTES = 4 << 20
_MAX_BATCH_ROWS = 4096
_MESSAGE_COLUMNS = frozenset({"messages", "tools", "tool_choice", "response_format", "extra", "body"})
"""Columns of which a null struct member means that the object has no such key."""


class Parquet:
    """Values come as JSON has them: times in ISO form, decimals as text, bytes in base64, NaN as null."""

    columns_are: Literal["declared", "values", "text"] = "declared"

    def schema(self, file: File) -> pa.Schema:
        with _opened(file) as parquet:
            return parquet.schema_arrow

    def blocks(self, file: File, wanted: Reading) -> Iterator[Block]:
        with _opened(file) as parquet:
            names = parquet.schema_arrow.names
            id_name = _id_name(names, wanted.id_column)
            read = None if wanted.columns is None or id_name is None else [*{id_name, *wanted.columns} & {*names}]
            shown = [id_name] if wanted.bare and id_name else names
            row = wanted.first
            for group in range(parquet.num_row_groups):
                end = row + parquet.metadata.row_group(group).num_rows
                batches = _batches(parquet, group, read)
                while not wanted.skips(row, end) and (batch := next(batches, None)):
                    yield _block(batch, shown, file=file.name, row=row, wanted=wanted)
                    row += batch.num_rows
                row = end
                yield Block(items=[], end=end)


@contextmanager
def _opened(file: File) -> Iterator[pq.ParquetFile]:
    # Unbuffered, Arrow's reader holds whole columns of a row group.
    options = {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
    with reading(file), seekable(file) as content, pq.ParquetFile(content, **options) as parquet:
        names = parquet.schema_arrow.names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise JobError(f"{file.name}: several columns are called {', '.join(map(repr, sorted(twice)))}")
        yield parquet


def _id_name(names: Sequence[str], id_column: str | None) -> str | None:
    return next((name for name in id_names(id_column) if name in names), None)


def _batches(parquet: pq.ParquetFile, group: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    metadata = parquet.metadata.row_group(group)
    row_bytes = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
    rows = min(_MAX_BATCH_ROWS, max(1, _BATCH_BYTES // row_bytes))
    return parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False)  # type: ignore[no-any-return]


def _block(batch: pa.RecordBatch, shown: Sequence[str], *, file: str, row: int, wanted: Reading) -> Block:
    end = row + batch.num_rows
    rows = [each for each in range(row, min(end, wanted.stop)) if wanted.wants(each)]
    if not rows:
        return Block(items=[], end=end)
    if len(rows) < batch.num_rows:
        batch = batch.take(pa.array([each - row for each in rows], pa.int64()))
    return Block(items=_items(batch, shown, rows, file, wanted), end=end, size_bytes=batch.nbytes, table=batch)


def _items(batch: pa.RecordBatch, shown: Sequence[str], rows: Sequence[int], file: str, wanted: Reading) -> list[Item]:
    cells = [_cells(batch.column(name), name) for name in shown]
    objects = (
        [dict(zip(shown, values, strict=True)) for values in zip(*cells, strict=True)] if cells else [{}] * len(rows)
    )
    large = batch.nbytes > MAX_ROW_BYTES
    return [
        _item(columns, file=file, row=row, id_column=wanted.id_column, large=large)
        for row, columns in zip(rows, objects, strict=True)
    ]


def _item(columns: dict[str, Any], *, file: str, row: int, id_column: str | None, large: bool) -> Item:
    try:
        _refuse_unreadable(columns)
        if large and len(json_bytes(columns)) > MAX_ROW_BYTES:
            raise BadRow(f"longer than {MAX_ROW_BYTES >> 20} MiB")
        item_id = given_id(columns, id_column) or columns_id(columns)
    except BadRow as bad:
        known = {name: value for name, value in columns.items() if type(value) is not _Unreadable}
        return Item(item_id=columns_id(known), row=row, file=file, line=None, columns={}, fault=str(bad))
    return Item(item_id=item_id, row=row, file=file, line=None, columns=columns)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for a value that Python cannot hold."""

    why: str


def _refuse_unreadable(columns: Mapping[str, Any]) -> None:
    if _Unreadable not in map(type, columns.values()):
        return
    for name, value in columns.items():
        if type(value) is _Unreadable:
            raise BadRow(f"column {name!r}: {value.why}")


def _cells(column: pa.Array, name: str) -> list[Any]:
    """The values of a column as JSON has them."""
    kind = _in_microseconds(column.type)
    if kind != column.type:
        column = column.cast(kind, safe=False)
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_value(scalar) for scalar in column]
    if name in _MESSAGE_COLUMNS:
        return [_without_nulls(_plain(value)) for value in values]
    return values if _is_plain(column.type) else [_plain(value) for value in values]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return _Unreadable(str(error))


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """The type with times that Python can hold."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    return kind


def _is_plain(kind: pa.DataType) -> bool:
    """Whether JSON has every value of this type as Python has it."""
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    other = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    return is_text(kind) or bool(other)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str() | _Unreadable():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case [tuple(), *_]:
            return {str(name): _plain(each) for name, each in value}
        case list():
            return [_plain(each) for each in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case Decimal():
            return format(value, "f")
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        # A message that calls tools has a content of null, said or not: JSON Lines and Parquet must ask the same.
        calls = "content" in value and value.get("tool_calls")
        return {
            name: _without_nulls(each)
            for name, each in value.items()
            if each is not None or (calls and name == "content")
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


SOURCE = Parquet()
