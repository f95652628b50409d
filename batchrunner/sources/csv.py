"""Comma-separated values with a header row; quoted cells may hold line breaks."""

from __future__ import annotations

import csv
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from batchrunner.errors import BadRow, JobError
from batchrunner.records import Item
from batchrunner.sources._bytes import Overlong, lines, reading
from batchrunner.sources._identity import columns_id, content_id, given_id
from batchrunner.sources._types import CELL_READERS
from batchrunner.sources.base import MAX_ROW_BYTES, Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from batchrunner.sources.base import File, Reading

_BLOCK_BYTES = 256 << 10
# The module's own bound is 128 KiB a cell, below many a prompt; ours is checked line by line before it.
csv.field_size_limit(MAX_ROW_BYTES)


class Csv:
    """Cells are text until the checking pass has said what their column holds; empty ones are None."""

    columns_are: Literal["declared", "values", "text"] = "text"

    def schema(self, file: File) -> pa.Schema:
        with reading(file), closing(_Records(file)) as records:
            return pa.schema([(name, pa.string()) for name in records.header()])

    def blocks(self, file: File, wanted: Reading) -> Iterator[Block]:
        with reading(file), closing(_Records(file)) as records:
            header = records.header()
            readers = {
                name: CELL_READERS[kind]
                for name in header
                if (kind := wanted.types.get(name, "string")) in CELL_READERS
            }
            row, items, size = wanted.first, list[Item](), 0
            while row < wanted.stop and records.begin():
                if wanted.wants(row):
                    items.append(_item(records, header, readers, file=file.name, row=row, id_column=wanted.id_column))
                    size += records.size
                elif records.quoted:
                    records.pass_over()
                row += 1
                if size >= _BLOCK_BYTES:
                    yield Block(items=items, end=row, size_bytes=size)
                    items, size = [], 0
            yield Block(items=items, end=row, size_bytes=size)


def _item(
    records: _Records,
    header: Sequence[str],
    readers: Mapping[str, Callable[[str], Any]],
    *,
    file: str,
    row: int,
    id_column: str | None,
) -> Item:
    line = records.first_line
    try:
        cells = records.cells()
        if len(cells) != len(header):
            raise BadRow(f"expected {len(header)} cells, got {len(cells)}")
        columns: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
        # Before cells get their types: a row added at the other end of the file must not change this row's id.
        item_id = given_id(columns, id_column) or columns_id(columns)
        for name, read in readers.items():
            if columns[name] is not None:
                columns[name] = _value(name, columns[name], read)
    except BadRow as bad:
        raw_id = content_id(records.raw.strip())
        return Item(item_id=raw_id, row=row, file=file, line=line, columns={}, fault=str(bad))
    return Item(item_id=item_id, row=row, file=file, line=line, columns=columns)


def _value(name: str, cell: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(cell)
    except (ValueError, KeyError):
        raise BadRow(f"column {name!r}: {cell!r} is not what the column held when the input was checked") from None


class _Records:
    """Records one after another. `begin` finds the next; `cells` reads it, or `pass_over` goes behind it."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._source = lines(file)
        self._lines = chain.from_iterable(self._source)
        self._number = 0
        self._raw: list[bytes] = []
        self._pending = b""
        self._fault: str | None = None
        self._reader = csv.reader(self, strict=True)
        self.size = 0
        self.first_line = 0

    def close(self) -> None:
        self._source.close()

    @property
    def raw(self) -> bytes:
        return b"\n".join(self._raw)

    @property
    def quoted(self) -> bool:
        """Whether the record that begins here may go on behind its first line."""
        return b'"' in self._pending

    def begin(self) -> bool:
        for line in self._lines:
            self._number += 1
            if line and line != b"\r":
                self._pending, self.first_line = line, self._number
                self._raw.clear()
                self._fault, self.size = None, 0
                return True
        return False

    def cells(self) -> list[str]:
        """The record's cells. Raises BadRow."""
        try:
            cells = next(self._reader)
        except csv.Error as error:
            raise BadRow(f"not CSV: {error}") from None
        if self._fault is not None:
            raise BadRow(self._fault)
        return cells

    def pass_over(self) -> None:
        try:
            self.cells()
        except BadRow:
            return

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> str:
        """The next line of the record at hand, for the standard reader."""
        if self._raw:
            line = next(self._lines)
            self._number += 1
        else:
            line = self._pending
        self._raw.append(line)
        self.size += len(line) + 1
        if type(line) is Overlong or self.size > MAX_ROW_BYTES:
            raise BadRow(f"longer than {MAX_ROW_BYTES >> 20} MiB; is a quote never closed?")
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as broken:
            # Read on to the record's end, or its other lines would pass for rows.
            self._fault = f"not UTF-8: byte {broken.start + 1} of the line is 0x{line[broken.start]:02x}"
            return line.decode(errors="replace") + "\n"

    def header(self) -> list[str]:
        """The names of the columns; one without a name is called by its position. Raises JobError."""
        if not self.begin():
            raise JobError(f"{self._file.name}: no header row")
        try:
            names = [name or f"column_{position}" for position, name in enumerate(self.cells(), start=1)]
        except BadRow as bad:
            raise JobError(f"{self._file.name}: the header row cannot be read: {bad}") from None
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise JobError(f"{self._file.name}: several columns are called {', '.join(map(repr, sorted(twice)))}")
        return names


SOURCE = Csv()
