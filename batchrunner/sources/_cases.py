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
    """Rows `len(ways) * n` and the next ones are what comes of row n; their id is `case/variant/repeat`."""

    def __init__(self, rows: Input, ways: Ways) -> None:
        only = None if rows.where is None else rows.where.text
        super().__init__(rows.parts, name=rows.format, id_column=rows.id_column, only=only)
        self.ways = ways

    def of_checked(self, checked: Checked) -> Checked:
        """What was found of the rows, told of the items. Raises JobError for columns whose names are taken."""
        taken = [name for name in CASE_COLUMNS if name in checked.columns and name not in checked.id_columns]
        if taken:
            raise JobError(
                f"matrix: the input has a column {taken[0]!r}, which the matrix gives to every item; rename it"
            )
        ways, schema = len(self.ways), checked.schema
        if schema is not None:
            own = [pa.field(name, ARROW_TYPES[kind]) for name, kind in CASE_COLUMNS.items()]
            schema = pa.schema([*(field for field in schema if field.name not in CASE_COLUMNS), *own])
        return replace(
            checked,
            rows=checked.rows * ways,
            file_rows=tuple(rows * ways for rows in checked.file_rows),
            faulty=checked.faulty * ways,
            columns={**checked.columns, **CASE_COLUMNS},
            schema=schema,
        )

    def learn(self, checked: Checked) -> None:
        ways = len(self.ways)
        file_rows = tuple(rows // ways for rows in checked.file_rows)
        super().learn(replace(checked, rows=checked.rows // ways, file_rows=file_rows))

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
        columns = None if wanted.columns is None else [name for name in wanted.columns if name not in CASE_COLUMNS]
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
            table = None if block.table is None else block.table.take(pa.array([at for at, _ in made], pa.int64()))
            size = block.size_bytes * len(items) // max(1, len(block.items))
            yield Block(items=items, end=(rows[-1].row + 1) * len(ways), size_bytes=size, table=table)
        yield Block(items=[], end=block.end * len(ways))

    def _items(self, row: Item, ways: Sequence[tuple[str, int]]) -> Iterator[Item]:
        first = row.row * len(ways)
        for number, (variant, repeat) in enumerate(ways):
            own = {"case_id": row.item_id, "variant": variant, "repeat": repeat}
            yield Item(
                item_id=f"{row.item_id}/{variant}/{repeat}",
                row=first + number,
                file=row.file,
                line=row.line,
                columns=own if row.fault else {**row.columns, **own},
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
