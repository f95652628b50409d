"""Who a row is: the text in its id column, else a hash of its content."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchrunner.records import Item

ID_COLUMNS = ("id", "custom_id")
"""Where ids are looked for when the job names no column."""

_SHOWN_NAMES = 10


def given_id(columns: Mapping[str, Any], id_column: str | None) -> str | None:
    """The id that a row states; None when it has none and none was asked for. Raises BadRow."""
    if id_column is not None:
        if id_column not in columns:
            raise BadRow(f"{no_column(id_column)} (found: {found(columns)})")
        return _text(id_column, columns[id_column])
    for name in ID_COLUMNS:
        if name in columns:
            return _text(name, columns[name])
    return None


def _text(name: str, value: Any) -> str:
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    raise BadRow(f"column {name!r}: expected an id, text or a whole number, got {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    return repr(value) if isinstance(value, bool | float) else f"a {type(value).__name__}"


def id_names(id_column: str | None) -> tuple[str, ...]:
    """Where an id is looked for, the first that is there wins."""
    return ID_COLUMNS if id_column is None else (id_column,)


def is_named(item: Item, id_column: str | None) -> bool:
    """Whether the id of a row, read with its columns, is one that it states."""
    return any(name in item.columns for name in id_names(id_column))


def no_column(id_column: str) -> str:
    return f"no {id_column!r} key"


def found(names: Iterable[str]) -> str:
    """Column names for a message, the first few."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN_NAMES]) + (", ..." if len(listed) > _SHOWN_NAMES else "")


def content_id(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def columns_id(columns: Mapping[str, Any]) -> str:
    """The id of a row that states none: the same for the same content, in whatever order of columns."""
    return content_id(json_bytes(columns, sort=True))


def json_bytes(value: Any, *, sort: bool = False) -> bytes:
    """Compact JSON, also of whole numbers that 64 bits do not hold."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort).encode()


def shard_of(item_id: str, shards: int) -> int:
    """Which of `shards` slices an item belongs to: stable, and even over any set of ids."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest(), "big") % shards


def place(item: Item) -> str:
    """Where an item stands, for people."""
    return place_at(item.file, line=item.line, row=item.row)


def place_at(file: str, *, line: int | None, row: int) -> str:
    name = "standard input" if file == "-" else file
    return f"{name} row {row}" if line is None else f"{name} line {line}"
