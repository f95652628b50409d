"""The checking pass: the input, read once from end to end before anything is sent."""

from __future__ import annotations

import base64
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.errors import JobError
from batchrunner.sources._identity import is_named, no_column, place, shard_of
from batchrunner.sources._schema import declared_columns
from batchrunner.sources._types import CellKinds, ValueKinds
from batchrunner.sources.base import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.records import Item
    from batchrunner.sources._input import Input

_SHOWN = 10
_SLICE_ROWS = 1 << 20
_BUCKETS = 16


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows without an id of their own that look exactly like an earlier one, ascending, each with which time it is."""

    rows: array[int] = field(default_factory=lambda: array("Q"))
    times: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.rows)

    def time(self, row: int) -> int:
        """1 for a row that is the first of its kind, 2 for the next one."""
        at = bisect_left(self.rows, row)
        return self.times[at] if at < len(self.rows) and self.rows[at] == row else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the checking pass found."""

    rows: int
    file_rows: tuple[int, ...]
    faulty: int
    faults: tuple[str, ...]
    """Of the first faulty rows: where and why."""
    columns: dict[str, str]
    """Every column of any row, by first appearance: int64, double, bool, string or json; Parquet: the Arrow type."""
    id_columns: tuple[str, ...]
    """The columns that name items; none when all ids are hashes."""
    repeats: Repeats
    schema: pa.Schema | None = None
    """Of the columns, where the format has one."""
    shard: tuple[int, int] | None = None
    shard_rows: int | None = None
    """How many rows are of shard i of n."""

    def to_json(self) -> dict[str, Any]:
        """As plain data for a manifest."""
        return {
            "rows": self.rows,
            "file_rows": list(self.file_rows),
            "faulty": self.faulty,
            "faults": list(self.faults),
            "columns": self.columns,
            "id_columns": list(self.id_columns),
            "repeats": [_packed(self.repeats.rows), _packed(self.repeats.times)],
            "schema": None if self.schema is None else base64.b64encode(self.schema.serialize()).decode(),
            "shard": None if self.shard is None else list(self.shard),
            "shard_rows": self.shard_rows,
        }

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Checked:
        schema, shard = known["schema"], known["shard"]
        return cls(
            rows=known["rows"],
            file_rows=tuple(known["file_rows"]),
            faulty=known["faulty"],
            faults=tuple(known["faults"]),
            columns=known["columns"],
            id_columns=tuple(known["id_columns"]),
            repeats=Repeats(*map(_unpacked, known["repeats"])),
            schema=None if schema is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema))),
            shard=None if shard is None else (shard[0], shard[1]),
            shard_rows=known["shard_rows"],
        )


def _packed(numbers: array[int]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _unpacked(text: str) -> array[int]:
    return array("Q", base64.b64decode(text))


def check(source: Input, *, shard: tuple[int, int] | None = None) -> Checked:
    """Read the whole input once. Raises JobError for damaged files, impossible columns and duplicate ids."""
    declared = declared_columns(source)
    tally = _Tally(source, shard)
    for file in source.parts:
        first = tally.rows
        for block in source.file_blocks(file, Reading(first=first, bare=True)):
            tally.add(block.items)
        tally.file_rows.append(tally.rows - first)
    tally.refuse_missing_id()
    repeats = _repeats(source, tally)
    columns = declared.types if declared.schema is not None else {**declared.types, **tally.kinds.types()}
    return Checked(
        rows=tally.rows,
        file_rows=tuple(tally.file_rows),
        faulty=tally.faulty,
        faults=tuple(tally.faults),
        columns=columns,
        id_columns=tuple(name for name in source.id_names if name in columns),
        repeats=repeats,
        schema=declared.schema,
        shard=shard,
        shard_rows=tally.shard_rows,
    )


class _Tally:
    """What is counted on the way. Of every id it keeps 64 bits."""

    def __init__(self, source: Input, shard: tuple[int, int] | None) -> None:
        self._id_column, self._shard = source.id_column, shard
        self.kinds: ValueKinds | CellKinds = CellKinds() if source.format == "csv" else ValueKinds()
        self.hashes = array("q")
        self.file_rows: list[int] = []
        self.faults: list[str] = []
        self.faulty = self._without_id = 0
        self.shard_rows = None if shard is None else 0

    @property
    def rows(self) -> int:
        return len(self.hashes)

    def add(self, items: Iterator[Item]) -> None:
        for item in items:
            self.hashes.append(hash(item.item_id))
            if item.fault is not None:
                self._note(item, item.fault)
            elif item.columns:
                self.kinds.add(item.columns)
        if self._shard is not None:
            self.count_shard(sum(shard_of(item.item_id, self._shard[1]) == self._shard[0] for item in items))

    def _note(self, item: Item, fault: str) -> None:
        self.faulty += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(f"{place(item)}: {fault}")
        if self._id_column is not None and fault.startswith(no_column(self._id_column)):
            self._without_id += 1

    def refuse_missing_id(self) -> None:
        if 0 < self._without_id == self.rows:
            raise JobError(f"no row has an id in column {self._id_column!r}; the first: {self.faults[0]}")
