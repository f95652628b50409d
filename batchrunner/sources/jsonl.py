"""JSON Lines: an object a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import orjson

from batchrunner.errors import BadRow
from batchrunner.records import Item
from batchrunner.sources._bytes import Overlong, lines, reading
from batchrunner.sources._identity import columns_id, content_id, given_id
from batchrunner.sources.base import MAX_ROW_BYTES, Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.sources.base import File, Reading

_MAX_DEPTH = 200
_EXACT_FLOAT = float(1 << 63)
_KINDS = {list: "an array", str: "text", int: "a number", float: "a number", bool: "a bool", type(None): "null"}


class Jsonl:
    """Lines may end in LF or CRLF, the last one in nothing; blank lines are not rows."""

    columns_are: Literal["declared", "values", "text"] = "values"

    def schema(self, file: File) -> None:
        return None

    def blocks(self, file: File, wanted: Reading) -> Iterator[Block]:
        row, number = wanted.first, 0
        with reading(file):
            for some in lines(file):
                items: list[Item] = []
                if row >= wanted.stop:
                    return
                if wanted.skips(row, row + len(some)):
                    number += len(some)
                    row += sum(1 for line in some if line and not line.isspace())
                    some.clear()
                for line in some:
                    number += 1
                    if not line or line.isspace():
                        continue
                    if row >= wanted.stop:
                        yield Block(items=items, end=row)
                        return
                    if wanted.wants(row):
                        items.append(_item(line, file=file.name, number=number, row=row, id_column=wanted.id_column))
                    row += 1
                yield Block(items=items, end=row, size_bytes=sum(map(len, some)))


def _item(line: bytes, *, file: str, number: int, row: int, id_column: str | None) -> Item:
    try:
        columns = _object(line)
        item_id = given_id(columns, id_column) or columns_id(columns)
    except BadRow as bad:
        return Item(item_id=_raw_id(line), row=row, file=file, line=number, columns={}, fault=str(bad))
    return Item(item_id=item_id, row=row, file=file, line=number, columns=columns)


def _raw_id(line: bytes) -> str:
    return line.decode() if type(line) is Overlong else content_id(line.strip())


def _object(line: bytes) -> dict[str, Any]:
    if type(line) is Overlong:
        raise BadRow(f"longer than {MAX_ROW_BYTES >> 20} MiB")
    try:
        columns = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadRow(_why(line, error)) from None
    if type(columns) is not dict:
        raise BadRow(f"expected a JSON object, got {_KINDS[type(columns)]}")
    if line.count(b"[") + line.count(b"{") > _MAX_DEPTH and _depth(columns) > _MAX_DEPTH:
        raise BadRow(f"nested deeper than {_MAX_DEPTH} levels")
    return _exact(line, columns) if float in map(type, columns.values()) else columns


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"not UTF-8: byte {broken.start + 1} of the line is 0x{line[broken.start]:02x}"
    if not line.strip(b"\0\r"):
        return "nothing but NUL bytes"
    return f"not JSON: {error.msg} (column {error.colno})"


def _exact(line: bytes, columns: dict[str, Any]) -> dict[str, Any]:
    """`columns`, with whole numbers that 64 bits do not hold as they were written."""
    if not any(type(value) is float and abs(value) >= _EXACT_FLOAT for value in columns.values()):
        return columns
    try:
        exact: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise BadRow(f"not JSON that can be read: {error}") from None
    return exact


def _depth(value: Mapping[str, Any]) -> int:
    depth, level = 0, [*value.values()]
    while level:
        depth += 1
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [value for each in inner for value in each]
    return depth


SOURCE = Jsonl()
