"""What the input gives to the results: who the rows are, where they stand, and the columns that are carried."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources._identity import found, json_bytes, shard_of
from batchrunner.sources.base import ARROW_TYPES, Block, Reading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from batchrunner.records import Item
    from batchrunner.sources._checked import Checked
    from batchrunner.sources._input import Input

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 8192
_PLACE = [
    pa.field("row", pa.int64()),
    pa.field("item_id", pa.string()),
    pa.field("input_file", pa.string()),
    pa.field("input_line", pa.int64()),
]


def kept_columns(checked: Checked, keep: Sequence[str] | None, *, apart: Collection[str] = ()) -> list[str]:
    """The input columns that are carried: those of `keep`, or all that are not set `apart`. Raises JobError."""
    if keep is None:
        return [name for name in checked.columns if name not in apart]
    # An input without rows may have no columns; there is nothing to mistype then.
    faults = [_unknown(name, checked) for name in keep if checked.columns and name not in checked.columns]
    if faults:
        raise JobError(*faults)
    return list(dict.fromkeys(keep))


def _unknown(name: str, checked: Checked) -> str:
    near = difflib.get_close_matches(name, checked.columns, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"output.keep: the input has no column {name!r}{hint} (found: {found(checked.columns)})"


def kept_schema(
    checked: Checked, keep: Sequence[str] | None, taken: Collection[str], *, apart: Collection[str] = ()
) -> pa.Schema:
    """The carried columns as the results have them, in the order of `kept_columns`.

    A name that is `taken` gets `input_` in front. Raises JobError.
    """
    used = set(taken)
    fields = []
    for name in kept_columns(checked, keep, apart=apart):
        fields.append(pa.field(_free(name, used, checked.columns), _arrow_type(name, checked)))
        used.add(fields[-1].name)
    return pa.schema(fields)


def _free(name: str, used: Collection[str], columns: Collection[str]) -> str:
    free = name
    while free in used or (free != name and free in columns):
        free = f"input_{free}"
    return free


def _arrow_type(name: str, checked: Checked) -> pa.DataType:
    if checked.schema is not None and name in checked.schema.names:
        return checked.schema.field(name).type
    return ARROW_TYPES[checked.columns.get(name, "string")]


def result_batches_input(
    source: Input,
    checked: Checked,
    keep: Sequence[str] | None,
    taken: Collection[str],
    *,
    apart: Collection[str] = (),
    shard: tuple[int, int] | None = None,
    stop: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Every row before `stop`, of shard i of n, in input order: row, item_id, input_file, input_line, carried columns.

    A faulty row carries nulls. Raises JobError when the input is not what it was when it was checked.
    """
    names = kept_columns(checked, keep, apart=apart)
    schema = pa.schema([*_PLACE, *kept_schema(checked, keep, taken, apart=apart)])
    source.learn(checked)
    wanted = Reading(bare=True, columns=names) if stop is None else Reading(bare=True, columns=names, stop=stop)
    blocks = (_of_shard(block, shard) for block in source.blocks(wanted))
    for block in _gathered(blocks):
        if block.items:
            yield _batch(block, names, schema, checked)


def _of_shard(block: Block, shard: tuple[int, int] | None) -> Block:
    if shard is None:
        return block
    index, shards = shard
    at = [at for at, item in enumerate(block.items) if shard_of(item.item_id, shards) == index]
    table = None if block.table is None else block.table.take(pa.array(at, pa.int64()))
    size = block.size_bytes * len(at) // max(1, len(block.items))
    return Block(items=[block.items[each] for each in at], end=block.end, size_bytes=size, table=table)


def _gathered(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same rows, small blocks put together; those with a table have a good size already."""
    items: list[Item] = []
    size = 0
    for block in blocks:
        if block.table is not None:
            yield block
            continue
        items += block.items
        size += block.size_bytes
        while len(items) >= _BATCH_ROWS or (items and size >= _BATCH_BYTES):
            yield Block(items=items[:_BATCH_ROWS], end=block.end)
            items, size = items[_BATCH_ROWS:], 0
    yield Block(items=items, end=0)


def _batch(block: Block, names: Sequence[str], schema: pa.Schema, checked: Checked) -> pa.RecordBatch:
    items = block.items
    places: list[list[Any]] = [
        [item.row for item in items],
        [item.item_id for item in items],
        [item.file for item in items],
        [item.line for item in items],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(places, _PLACE, strict=True)]
    try:
        for name, field in zip(names, [*schema][len(_PLACE) :], strict=True):
            arrays.append(_carried(block, name, field.type, json=checked.columns.get(name) == "json"))
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise JobError(f"{items[0].file}: changed since it was checked (column {name!r}: {error})") from error
    return pa.record_batch(arrays, schema=schema)


def _carried(block: Block, name: str, kind: pa.DataType, *, json: bool) -> pa.Array:
    if block.table is not None and name in block.table.schema.names:
        return _of_table(block.table.column(name), block.items, kind)
    values = [item.columns.get(name) for item in block.items]
    if json:
        values = [None if value is None else json_bytes(value).decode() for value in values]
    return pa.array(values, kind)


def _of_table(column: pa.Array, items: Sequence[Item], kind: pa.DataType) -> pa.Array:
    if any(item.fault is not None for item in items):
        sound = [None if item.fault is not None else at for at, item in enumerate(items)]
        column = column.take(pa.array(sound, pa.int64()))
    return column if column.type == kind else column.cast(kind)
