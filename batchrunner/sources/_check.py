"""The checking pass: the input, read once from end to end before anything is sent."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.errors import JobError
from batchrunner.sources._checked import Checked, Repeats
from batchrunner.sources._identity import id_names, is_named, no_column, place, place_at, shard_of
from batchrunner.sources._schema import declared_columns
from batchrunner.sources._types import CellKinds, ValueKinds
from batchrunner.sources.base import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from batchrunner.records import Item
    from batchrunner.sources._input import Input
    from batchrunner.sources._schema import Declared

_SHOWN = 10
_SLICE_ROWS = 1 << 20
_BUCKETS = 16


def check(source: Input, *, shard: tuple[int, int] | None = None) -> Checked:
    """Read the whole input once. Raises JobError for damaged files, impossible columns and duplicate ids."""
    declared = declared_columns(source)
    known, looked_at = _all_rows(source, declared) if source.where is not None else ({}, None)
    tally = _Tally(source, shard)
    for file in source.parts:
        first = tally.rows
        for block in source.file_blocks(file, Reading(first=first, bare=True, types=known, schema=declared.schema)):
            tally.add(block.items)
        tally.file_rows.append(tally.rows - first)
    tally.refuse_missing_id()
    repeats = _repeats(source, tally, Reading(types=known, schema=declared.schema))
    columns = _columns(source, declared, tally.types(), tally.rows) if source.where is None else known
    found = Checked(
        rows=tally.rows,
        file_rows=tuple(tally.file_rows),
        faulty=tally.faulty,
        faults=tuple(tally.faults),
        columns=columns,
        id_columns=tuple(name for name in id_names(source.id_column) if name in columns),
        repeats=repeats,
        schema=declared.schema,
        shard=shard,
        shard_rows=tally.shard_rows,
        looked_at=looked_at,
    )
    return source.of_checked(found)


def _all_rows(source: Input, declared: Declared) -> tuple[dict[str, str], int]:
    """What the columns of all rows hold, and how many rows there are: what `where` says must not hang on which rows it
    leaves. Raises JobError where it cannot be told of these columns."""
    kinds, count = _Kinds(source), 0
    for file in source.parts:
        for block in source.all_blocks(file, Reading(bare=True, columns=[])):
            kinds.add(item for item in block.items if item.fault is None)
            count += len(block.items)
    columns = _columns(source, declared, kinds.types(), count) if source.parts else {}
    if source.where is not None:
        source.where.check(columns, declared.schema)
    return columns, count


def _columns(source: Input, declared: Declared, seen: Mapping[str, str], rows: int) -> dict[str, str]:
    """None where there is no row that could tell: folders alone do not say which columns their files have."""
    known = {**declared.types, **seen}
    return {**known, **source.partitions} if known or rows else {}


class _Kinds:
    """Of what kinds the values are that columns have been seen to hold; where files do not declare it."""

    def __init__(self, source: Input) -> None:
        self._apart = source.partitions
        self._found = None if source.source.columns_are == "declared" else _KINDS[source.source.columns_are]()

    def add(self, items: Iterable[Item]) -> None:
        if self._found is None:
            return
        for item in items:
            columns = item.columns
            if self._apart:
                columns = {name: value for name, value in columns.items() if name not in self._apart}
            self._found.add(columns)

    def types(self) -> dict[str, str]:
        return {} if self._found is None else self._found.types()


class _Tally:
    """What is counted on the way. Of every id it keeps 64 bits."""

    def __init__(self, source: Input, shard: tuple[int, int] | None) -> None:
        self._id_column, self._shard, self._ids_of = source.id_column, shard, source.ids_of
        self._kinds = _Kinds(source) if source.where is None else None
        self._without_id = 0
        self.hashes = array("q")
        self.file_rows: list[int] = []
        self.faults: list[str] = []
        self.faulty = 0
        self.shard_rows = None if shard is None else 0

    @property
    def rows(self) -> int:
        return len(self.hashes)

    def types(self) -> dict[str, str]:
        return {} if self._kinds is None else self._kinds.types()

    def add(self, items: Sequence[Item]) -> None:
        for item in items:
            self.hashes.append(hash(item.item_id))
            if item.fault is not None:
                self._note(item, item.fault)
        if self._kinds is not None:
            self._kinds.add(item for item in items if item.fault is None)
        for item in items if self._shard else ():
            self.count_shard(item.item_id, 1)

    def count_shard(self, item_id: str, rows: int) -> None:
        """Of so many rows with this id, those items that are of the shard."""
        if self._shard is not None and self.shard_rows is not None:
            index, shards = self._shard
            self.shard_rows += rows * sum(shard_of(each, shards) == index for each in self._ids_of(item_id))

    def _note(self, item: Item, fault: str) -> None:
        self.faulty += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(f"{place(item)}: {fault}")
        if self._id_column is not None and fault.startswith(no_column(self._id_column)):
            self._without_id += 1

    def refuse_missing_id(self) -> None:
        if 0 < self._without_id == self.rows:
            raise JobError(f"no row has an id in column {self._id_column!r}; the first: {self.faults[0]}")


_KINDS: dict[str, type[ValueKinds] | type[CellKinds]] = {"values": ValueKinds, "text": CellKinds}


def _repeats(source: Input, tally: _Tally, told: Reading) -> Repeats:
    """Second look at the rows whose ids share their 64 bits. Raises JobError when ids that rows state are the same."""
    positions = _shared(tally.hashes)
    repeats, seen, duplicates = Repeats(), _Seen(), list[str]()
    for item in _rows_at(source, positions, file_rows=tally.file_rows, told=told):
        time = seen.count(item)
        if time == 1:
            continue
        if is_named(item, source.id_column):
            duplicates.append(f"id {item.item_id!r} appears twice: {seen.first_place(item)} and {place(item)}")
            if len(duplicates) > _SHOWN:
                break
            continue
        repeats.rows.append(item.row)
        repeats.times.append(time)
        tally.count_shard(item.item_id, -1)
        tally.count_shard(f"{item.item_id}-{time}", 1)
    if duplicates:
        more = ["there are more; ids must be unique"] if len(duplicates) > _SHOWN else []
        raise JobError(*duplicates[:_SHOWN], *more)
    return repeats


class _Seen:
    """How often an id has come by, and where first."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._firsts: dict[str, tuple[str, int | None, int]] = {}

    def count(self, item: Item) -> int:
        time = self._times.get(item.item_id, 0) + 1
        self._times[item.item_id] = time
        if time == 1:
            self._firsts[item.item_id] = (item.file, item.line, item.row)
        return time

    def first_place(self, item: Item) -> str:
        file, line, row = self._firsts[item.item_id]
        return place_at(file, line=line, row=row)


def _rows_at(source: Input, positions: pa.Array, *, file_rows: Sequence[int], told: Reading) -> Iterator[Item]:
    skip = bytearray(b"\1") * sum(file_rows)
    for position in positions:
        skip[position.as_py()] = 0
    first = 0
    for file, rows in zip(source.parts, file_rows, strict=True):
        wanted = replace(told, first=first, stop=first + rows, skip=skip)
        first += rows
        if not wanted.skips(wanted.first, wanted.stop):
            for block in source.file_blocks(file, wanted):
                yield from block.items


def _shared(hashes: array[int]) -> pa.Array:
    """The positions of all numbers that appear more than once, ascending.

    By buckets, because sorting at one go would hold three times as much.
    """
    whole = pa.Array.from_buffers(pa.int64(), len(hashes), [None, pa.py_buffer(hashes)])
    slices = [whole.slice(start, _SLICE_ROWS) for start in range(0, len(whole), _SLICE_ROWS)]
    if not slices:
        return pa.array([], pa.int64())
    buckets = 1 if len(slices) == 1 else _BUCKETS
    twice = pa.concat_arrays([_twice(_bucket(slices, bucket, buckets)) for bucket in range(buckets)])
    if len(twice) == 0:
        return twice
    found = [
        pc.add(pc.indices_nonzero(pc.is_in(each, value_set=twice)).cast(pa.int64()), index * _SLICE_ROWS)
        for index, each in enumerate(slices)
    ]
    return pa.concat_arrays(found)


def _bucket(slices: Sequence[pa.Array], bucket: int, buckets: int) -> pa.Array:
    return pa.concat_arrays([each.filter(pc.equal(pc.bit_wise_and(each, buckets - 1), bucket)) for each in slices])


def _twice(numbers: pa.Array) -> pa.Array:
    ordered = numbers.take(pc.array_sort_indices(numbers))
    return ordered.slice(1).filter(pc.equal(ordered.slice(1), ordered.slice(0, max(0, len(ordered) - 1)))).unique()
