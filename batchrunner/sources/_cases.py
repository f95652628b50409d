"""An input of which every row is a case: asked in several ways, several times, each an item of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.records import Item
from batchrunner.sources._input import Input
from batchrunner.sources.base import ARROW_TYPES, CASE_COLUMNS, Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.sources._checked import Checked
    from batchrunner.sources.base import Reading


@dataclass(frozen=True, slots=True)
class Ways:
    """How every case is asked: all variants, each so many times. Items come case by case, in this order."""

    variants: Sequence[str]
    repeats: int

    def __len__(self) -> int:
        return len(self.variants) * self.repeats

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((variant, repeat) for variant in self.variants for repeat in range(1, self.repeats + 1))


class Cases(Input):
    """Rows `len(ways) * n` and the next ones are what comes of row n; their id is `case/variant/repeat`.

    Columns of the rows that are called like those of the cases, as the results of another matrix have, get `input_`
    in front.
    """

    def __init__(self, rows: Input, ways: Ways) -> None:
        only = None if rows.where is None else rows.where.text
        super().__init__(rows.files, name=rows.format, id_column=rows.id_column, only=only)
        self.ways = ways
        self._names = {name: f"input_{name}" for name in CASE_COLUMNS if name != rows.id_column}
        """What columns of the rows are called beside those of the cases. The one that names rows names cases."""

    def of_checked(self, checked: Checked) -> Checked:
        """What was found of the rows, told of the items. Raises JobError for a column that cannot be renamed."""
        for name in self._names.values():
            if name in checked.columns:
                raise JobError(
                    f"matrix: the input has a column {name!r}, which a matrix keeps for its own use; rename it"
                )
        ways, schema = len(self.ways), checked.schema
        if schema is not None:
            own = [pa.field(name, ARROW_TYPES[kind]) for name, kind in CASE_COLUMNS.items()]
            rows = [field.with_name(self._renamed(field.name)) for field in schema]
            schema = pa.schema([*(field for field in rows if field.name not in CASE_COLUMNS), *own])
        columns = {self._renamed(name): kind for name, kind in checked.columns.items()}
        return replace(
            checked,
            rows=checked.rows * ways,
            file_rows=tuple(rows * ways for rows in checked.file_rows),
            faulty=checked.faulty * ways,
            columns={**columns, **CASE_COLUMNS},
            schema=schema,
        )

    def learn(self, checked: Checked) -> None:
        ways, schema = len(self.ways), checked.schema
        if schema is not None:
            rows_own = (field for field in schema if field.name not in CASE_COLUMNS)
            schema = pa.schema([field.with_name(self._of_row(field.name)) for field in rows_own])
        rows = replace(
            checked,
            rows=checked.rows // ways,
            file_rows=tuple(rows // ways for rows in checked.file_rows),
            columns={self._of_row(name): kind for name, kind in checked.columns.items() if name not in CASE_COLUMNS},
            schema=schema,
        )
        super().learn(rows)

    def _renamed(self, name: str) -> str:
        return self._names.get(name, name)

    def _of_row(self, name: str) -> str:
        """What the row itself calls a column."""
        return next((own for own, renamed in self._names.items() if renamed == name), name)

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "variants": [*self.ways.variants], "repeats": self.ways.repeats}

    def ids_of(self, row_id: str) -> Iterator[str]:
        return (f"{row_id}/{variant}/{repeat}" for variant, repeat in self.ways)

    def blocks(self, wanted: Reading) -> Iterator[Block]:
        for block in super().blocks(self._of_rows(wanted)):
            yield from self._expanded(block, wanted)

    def _of_rows(self, wanted: Reading) -> Reading:
        """What is wanted of the rows: those of which any item is."""
        ways = len(self.ways)
        stop = wanted.stop if wanted.stop == sys.maxsize else -(-wanted.stop // ways)
        columns = wanted.columns
        if columns is not None:
            columns = [self._of_row(name) for name in columns if name not in CASE_COLUMNS]
        return replace(wanted, stop=stop, skip=_all_skipped(wanted.skip, ways), columns=columns)

    def _expanded(self, block: Block, wanted: Reading) -> Iterator[Block]:
        """The items of some rows, no more than there are rows in one block, each way in turn for each row."""
        ways = [*self.ways]
        per_block = max(1, len(block.items) // len(ways))
        for first in range(0, len(block.items), per_block):
            rows = block.items[first : first + per_block]
            made = [
                (at, item)
                for at, row in enumerate(rows, first)
                for item in self._items(row, ways)
                if item.row < wanted.stop and wanted.wants(item.row)
            ]
            items = [item for _, item in made]
            table = None if block.table is None else self._table(block.table, [at for at, _ in made])
            size = block.size_bytes * len(items) // max(1, len(block.items))
            yield Block(items=items, end=(rows[-1].row + 1) * len(ways), size_bytes=size, table=table)
        yield Block(items=[], end=block.end * len(ways))

    def _table(self, table: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
        taken = table.take(pa.array(rows, pa.int64()))
        return taken.rename_columns([self._renamed(name) for name in taken.schema.names])

    def _items(self, row: Item, ways: Sequence[tuple[str, int]]) -> Iterator[Item]:
        first, columns = row.row * len(ways), {self._renamed(name): value for name, value in row.columns.items()}
        for number, (variant, repeat) in enumerate(ways):
            own = {"case_id": row.item_id, "variant": variant, "repeat": repeat}
            yield Item(
                item_id=f"{row.item_id}/{variant}/{repeat}",
                row=first + number,
                file=row.file,
                line=row.line,
                columns={**columns, **own},
                fault=row.fault,
            )


def _all_skipped(skip: bytes | bytearray | None, ways: int) -> bytes | None:
    """One byte for each row: 1 where every item of it is passed over."""
    if skip is None or ways == 1:
        return None if skip is None else bytes(skip)
    rows = len(skip) // ways
    flags = bytes(skip[: rows * ways]).translate(_FLAGS)
    found = int.from_bytes(b"\1" * rows, "big")
    for way in range(ways):
        found &= int.from_bytes(flags[way::ways], "big")
    return found.to_bytes(rows, "big")


_FLAGS = bytes([0, *[1] * 255])
