"""Folders named `key=value`, as Hive and whoever writes for it lay out tables: their values are columns of each row."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources._identity import content_id, id_names
from batchrunner.sources.base import ARROW_TYPES, Block

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from batchrunner.records import Item
    from batchrunner.sources.base import File

NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""Stands for null in a folder's name."""
_STEP = re.compile(r"([^=/]+)=([^/]*)")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_MAGIC = re.compile(r"[*?\[]")
_DATA = re.compile(r"\.(jsonl|ndjson|parquet|csv)(\.gz|\.zst)?$", re.IGNORECASE)


def partition_of(name: str, pattern: str) -> dict[str, str | None]:
    """The keys and values of a file's folders, as far as the pattern leaves them open; null for `NOTHING`.

    Folders that the pattern spells out are where a table is, not what is in it.
    """
    magic = _MAGIC.search(pattern)
    fixed = pattern.rstrip("/") if magic is None else pattern[: magic.start()].rpartition("/")[0]
    if not name.startswith(fixed):
        fixed = os.path.expanduser(fixed)  # noqa: PTH111 (a pattern is no path)
    steps = name.removeprefix(fixed).strip("/").split("/")[:-1]
    found = [match for step in steps if (match := _STEP.fullmatch(step))]
    partition = {_decoded(match[1]): None if match[2] == NOTHING else _decoded(match[2]) for match in found}
    if len(partition) < len(found):
        raise JobError(f"{name}: two of its folders have the same key")
    return partition


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def files_below(directory: Path, name: str) -> list[str]:
    """The files of a table, or of one folder of it: all in `key=value` folders, in order; none where there are none.

    What begins with a dot or an underscore is left out, as by every reader of such tables.
    """
    is_part, found, apart, seen = bool(_STEP.fullmatch(directory.name)), list[str](), list[str](), set[str]()
    for folder, folders, files in os.walk(directory, followlinks=True, onerror=_refuse):
        seen.add(os.path.realpath(folder))
        folders[:] = [
            each
            for each in sorted(folders)
            if not _is_hidden(each)
            and os.path.realpath(Path(folder) / each) not in seen  # A link may lead in a circle.
        ]
        steps = Path(folder).relative_to(directory).parts
        named = ["/".join([name.rstrip("/"), *steps, each]) for each in sorted(files) if not _is_hidden(each)]
        if is_part or any(map(_STEP.fullmatch, steps)):
            found += named
        else:
            apart += [each for each in named if _DATA.search(each)]
    if found and apart:
        raise JobError(f"{apart[0]}: in none of the key=value folders of {name}; move it, or name the files by a glob")
    return found


def _refuse(error: OSError) -> NoReturn:
    raise JobError(f"{error.filename}: {(error.strerror or str(error)).lower()}")


def is_of_table(name: str) -> bool:
    """Whether an object of a store is one of a table's files rather than what its writer keeps for itself."""
    return not any(_is_hidden(step) for step in name.split("/"))


def is_meant(name: str, pattern: str) -> bool:
    """Whether all folders of a file that a pattern matches are meant: those that begin with an underscore, as
    `_temporary`, have to be spelled out, for what writers keep there is not yet or no longer data."""
    spelled = [step for step in pattern.split("/") if step.startswith("_")]
    return not any(
        _is_hidden(step) and step.startswith("_") and not any(fnmatchcase(step, each) for each in spelled)
        for step in name.split("/")[:-1]
    )


def _is_hidden(step: str) -> bool:
    return (step.startswith((".", "_")) and "=" not in step) or step.endswith(".crc")


def partition_types(files: Sequence[File], id_column: str | None = None) -> dict[str, str]:
    """What the folders' values are: int64 where each is a whole number, else string. Raises JobError.

    All files must be in folders of the same keys, of which none can name items.
    """
    for name in id_names(id_column):
        if files and name in files[0].partition:
            raise JobError(f"{files[0].name}: the key of a folder, {name!r}, names no items; give a column as input.id")
    for file in files:
        if [*file.partition] != [*files[0].partition]:
            raise JobError(
                f"{file.name}: expected a file in folders {_keys(files[0])}, like {files[0].name}, got {_keys(file)}"
            )
    return {name: _type([file.partition[name] for file in files]) for name in (files[0].partition if files else ())}


def _keys(file: File) -> str:
    return "/".join(f"{name}=..." for name in file.partition) or "of no key"


def _type(values: Iterable[str | None]) -> str:
    known = [value for value in values if value is not None]
    return "int64" if known and all(_WHOLE.fullmatch(value) for value in known) else "string"


def partition_value(text: str | None, kind: str) -> int | str | None:
    return int(text) if text is not None and kind == "int64" else text


def partitioned(
    blocks: Iterable[Block], file: File, types: Mapping[str, str], *, id_column: str | None
) -> Iterator[Block]:
    """The rows of a file, with the columns that its folders give. A row that says something else is faulty."""
    values = {name: partition_value(text, types[name]) for name, text in file.partition.items()}
    mark = "".join(f"/{name}={text}" for name, text in file.partition.items())
    named = id_names(id_column)
    for block in blocks:
        items = [_item(item, file, values, "" if _has(item, named) else mark) for item in block.items]
        yield replace(block, items=items, table=_table(block.table, values, types))


def _has(item: Item, named: Sequence[str]) -> bool:
    return any(name in item.columns for name in named)


def _item(item: Item, file: File, values: Mapping[str, Any], mark: str) -> Item:
    # Rows that are alike in two folders are two items: where they stand is part of what they are.
    item_id = content_id(f"{item.item_id}{mark}".encode()) if mark else item.item_id
    if item.fault is not None:
        return replace(item, item_id=item_id)
    for name in values.keys() & item.columns.keys():
        said, folder = item.columns[name], file.partition[name]
        if said is not None and not _agrees(said, folder):
            fault = f"column {name!r} is {said!r} in the row, but its folder says {name}={folder}"
            return replace(item, item_id=item_id, columns={}, fault=fault)
    return replace(item, item_id=item_id, columns={**item.columns, **values})


def _agrees(said: Any, folder: str | None) -> bool:
    """Whether a value in a row is that of its folder, however each of them spells it."""
    text, known = str(said).lower().replace("t", " "), (folder or "").lower().replace("t", " ")
    if text == known:
        return True
    try:
        return float(text) == float(known)
    except ValueError:
        return False


def _table(table: pa.RecordBatch | None, values: Mapping[str, Any], types: Mapping[str, str]) -> pa.RecordBatch | None:
    if table is None:
        return None
    columns = {name: table.column(name) for name in table.schema.names if name not in values}
    columns |= {
        name: pa.repeat(pa.scalar(value, ARROW_TYPES[types[name]]), table.num_rows) for name, value in values.items()
    }
    return pa.RecordBatch.from_pydict(columns)


def with_partitions(schema: pa.Schema, types: Mapping[str, str]) -> pa.Schema:
    """The columns of the files with those of their folders behind them."""
    own = [pa.field(name, ARROW_TYPES[kind]) for name, kind in types.items()]
    return pa.schema([*(field for field in schema if field.name not in types), *own])
