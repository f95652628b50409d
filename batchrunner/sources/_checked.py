"""What the checking pass found, as it is remembered from one run to the next."""

from __future__ import annotations

import base64
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


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
    looked_at: int | None = None
    """How many rows `where` has chosen these from; None where there is none."""

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
            "looked_at": self.looked_at,
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
            looked_at=known.get("looked_at"),
        )


def _packed(numbers: array[int]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _unpacked(text: str) -> array[int]:
    return array("Q", base64.b64decode(text))
