"""What a source is: one file format, read in blocks."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.objects import ObjectsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batchrunner.objects import Copy
    from batchrunner.records import Item

ARROW_TYPES = {
    "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(), "string": pa.string(), "json": pa.string(),
}  # fmt: skip
"""Of what the checking pass calls a column."""
CASE_COLUMNS = {"case_id": "string", "variant": "string", "repeat": "int64"}
"""What every item of a matrix has beside the columns of its row, and of which type."""
MAX_ROW_BYTES = 16 << 20
"""A row above this is a fault of that row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the input: `name` as people know it, `path` as it is opened."""

    name: str
    path: Path
    compression: Literal["gzip", "zstd"] | None = None
    copy: Copy | None = None
    """What it is a copy of, where it is on an object store."""
    partition: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    """What its `key=value` folders say, as far as the input's pattern leaves them open."""

    def at_hand(self) -> Path:
        """The file on this machine; one on an object store is copied when it is first wanted. Raises JobError."""
        if self.copy is None:
            return self.path
        try:
            return self.copy.at_hand()
        except ObjectsError as error:
            raise JobError(str(error)) from error

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.copy is None else self.copy.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is wanted of one file."""

    first: int = 0
    """The number, in the whole input, of the file's first row."""
    stop: int = sys.maxsize
    """The first row that is not wanted."""
    skip: bytes | bytearray | None = None
    """One byte for each row of the whole input; rows whose byte is not zero are passed over."""
    id_column: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    """What the checking pass found the columns to be; empty before it."""
    schema: pa.Schema | None = None
    """The same for formats that declare types."""
    bare: bool = False
    """Only who the rows are is wanted: items may come without columns."""
    columns: Sequence[str] | None = None
    """What a block's table must hold; None: everything."""

    def skips(self, start: int, end: int) -> bool:
        """Whether none of the rows from `start` until before `end` is wanted."""
        if start >= self.stop:
            return True
        end = min(end, self.stop)
        return self.skip is not None and end <= len(self.skip) and self.skip.find(0, start, end) < 0

    def wants(self, row: int) -> bool:
        return self.skip is None or row >= len(self.skip) or not self.skip[row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some consecutive rows: items for those that are wanted."""

    items: Sequence[Item]
    end: int
    """The number of the row behind the last one, wanted or not."""
    size_bytes: int = 0
    """About what the items hold in memory."""
    table: pa.RecordBatch | None = None
    """The same rows as `items`, where the format has typed columns."""


class Source(Protocol):
    """How one file format is read.

    Stateless: every method may be called from several threads at once. A file that cannot be read
    raises JobError from any of them; a row that cannot be read is an item with a fault. Blocks come
    in file order, cover every row until `stop`, and hold a bounded part of the file each.
    """

    columns_are: Literal["declared", "values", "text"]
    """What tells the type of a column: the file's schema, the values of the rows, or what their text spells."""

    def schema(self, file: File) -> pa.Schema | None:
        """The columns that the file declares; None where only its rows tell."""

    def blocks(self, file: File, reading: Reading) -> Iterator[Block]:
        """The rows of the file that are wanted. Ids of rows without one are hashes of their content."""
