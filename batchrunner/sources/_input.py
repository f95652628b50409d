"""The input as a whole: several files of one format, their rows numbered through."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any

from batchrunner.errors import JobError
from batchrunner.sources import _files
from batchrunner.sources._bytes import reading
from batchrunner.sources._hive import partition_types, partitioned
from batchrunner.sources._where import where
from batchrunner.sources.base import Block, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from batchrunner.objects import Copies
    from batchrunner.records import Item
    from batchrunner.sources._checked import Checked
    from batchrunner.sources.base import File, Source

_SAMPLE_BYTES = 64 << 10


def open_input(
    patterns: str | Sequence[str],
    *,
    base: Path,
    id_column: str | None = None,
    spool: Path | None = None,
    stdin: IO[bytes] | None = None,
    copies: Copies | None = None,
    only: str | None = None,
) -> Input:
    """The files that `patterns` name, relative to `base`. Raises JobError with all faults.

    The pattern `-` is standard input, which is first kept at `spool`. `copies` finds what is on object stores.
    Rows are those for which the expression `only` is true.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if _files.STANDARD_INPUT in patterns:
        if len(patterns) > 1 or spool is None:
            raise JobError("standard input ('-') cannot be read together with files")
        stream = sys.stdin.buffer if stdin is None else stdin
        if stream.isatty():
            raise JobError("standard input is a terminal; pipe the rows in, or name a file")
        _files.spool_all(stream, spool)
        return open_spooled(spool, id_column=id_column, only=only)
    files = _files.find(patterns, base, copies)
    return Input(files, name=_files.format_of(files), id_column=id_column, only=only)


def open_spooled(spool: Path, *, id_column: str | None = None, only: str | None = None) -> Input:
    """Standard input as it was kept at `spool`. Raises JobError."""
    file, name = _files.spooled(spool)
    return Input([file], name=name, id_column=id_column, only=only)


def load(name: str) -> Source:
    source: Source = importlib.import_module(f"batchrunner.sources.{name}").SOURCE
    return source


class Input:
    """Rows of one or several files, in order. `learn` what the checking pass found before `rows` are asked for."""

    def __init__(
        self, files: Sequence[File], *, name: str, id_column: str | None = None, only: str | None = None
    ) -> None:
        self.format = name
        self.id_column = id_column
        self.source = load(name)
        self.where = None if only is None else where(only)
        self.partitions = partition_types(files, id_column)
        """Columns that the files' folders give, and of which type."""
        self.parts = tuple(file for file in files if not self._rules_out(file))
        """The files that are read: not those of which `where` takes no row by what their folders say."""
        self.files = tuple(files)
        self._checked: Checked | None = None

    def _rules_out(self, file: File) -> bool:
        return self.where is not None and bool(file.partition) and self.where.rules_out(file.partition, self.partitions)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.parts)

    @property
    def first_place(self) -> str:
        """Where the first file is, told from anywhere."""
        first = self.files[0]
        return first.name if first.copy is not None else str(first.path.resolve())

    def learn(self, checked: Checked) -> None:
        """Take over what the checking pass found: what columns hold, which rows are alike, where the input ends."""
        self._checked = checked

    def of_checked(self, checked: Checked) -> Checked:
        """What the checking pass found of the rows, told of the items that come of them."""
        return checked

    def ids_of(self, row_id: str) -> Iterable[str]:
        """The ids of the items that come of a row."""
        return (row_id,)

    def fingerprint(self) -> dict[str, Any]:
        """While this stays the same, so do the rows. Raises JobError.

        Size, time and hash of both ends of each file; of an object its size and ETag.
        """
        return {
            "format": self.format,
            "id": self.id_column,
            "files": [_fingerprint(file) for file in self.parts],
            **({} if self.where is None else {"where": self.where.text}),
            **({"partitions": self.partitions} if self.partitions else {}),
        }

    def rows(self, skip: bytes | bytearray | memoryview | None = None, stop: int | None = None) -> Iterator[Item]:
        """Every row before `stop`, in order, but those whose byte in `skip` is not zero.

        Never holds the input whole. What is wrong with a row is its item's `fault`.
        """
        if isinstance(skip, memoryview):
            skip = skip.tobytes()
        for block in self.blocks(Reading(skip=skip, stop=sys.maxsize if stop is None else stop)):
            yield from block.items

    def blocks(self, wanted: Reading) -> Iterator[Block]:
        """The rows as `rows` has them, in blocks."""
        checked, first = self._checked, 0
        if checked is not None:
            wanted = replace(wanted, types=checked.columns, schema=checked.schema)
        for index, file in enumerate(self.parts):
            end = first + checked.file_rows[index] if checked is not None else sys.maxsize
            if checked is None or not wanted.skips(first, end):
                # Rows that were added to a file since it was checked must not move those of the next one.
                for block in self.file_blocks(file, replace(wanted, first=first, stop=min(wanted.stop, end))):
                    yield _numbered(block, checked) if checked is not None and checked.repeats else block
                    first = block.end
            first = first if checked is None else end

    def file_blocks(self, file: File, wanted: Reading) -> Iterator[Block]:
        """The rows of one file, as far as they are of the input."""
        if self.where is None:
            return self.all_blocks(file, wanted)
        columns = [] if wanted.bare and wanted.columns is None else wanted.columns
        if columns is not None:
            columns = [*dict.fromkeys([*columns, *self.where.names])]
        whole = Reading(types=wanted.types, schema=wanted.schema, bare=wanted.bare, columns=columns)
        return self.where.matching(self.all_blocks(file, whole), wanted)

    def all_blocks(self, file: File, wanted: Reading) -> Iterator[Block]:
        """The rows of one file, those too that are not of the input."""
        blocks = self.source.blocks(file, replace(wanted, id_column=self.id_column))
        return partitioned(blocks, file, self.partitions, id_column=self.id_column) if self.partitions else blocks


def _numbered(block: Block, checked: Checked) -> Block:
    """The block, with a number behind the ids of rows that look like an earlier one."""
    items = [
        item if (time := checked.repeats.time(item.row)) == 1 else replace(item, item_id=f"{item.item_id}-{time}")
        for item in block.items
    ]
    return replace(block, items=items)


def _fingerprint(file: File) -> dict[str, Any]:
    folders = {"folders": dict(file.partition)} if file.partition else {}
    if file.copy is not None:
        return {"path": file.name, "size": file.copy.size, "etag": file.copy.etag, **folders}
    with reading(file), file.path.open("rb") as content:
        digest = blake2b(content.read(_SAMPLE_BYTES), digest_size=16)
        size = content.seek(0, 2)
        content.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(content.read(_SAMPLE_BYTES))
        changed_ns = file.path.stat().st_mtime_ns
    return {"path": file.name, "size": size, "mtime_ns": changed_ns, "hash": digest.hexdigest(), **folders}
