"""The type of a column, told by its values: int64, double, bool or string if all agree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["bool", "int", "wide", "huge", "float", "text", "json"]
"""`wide` whole numbers do not fit a double, `huge` ones do not fit 64 bits."""

MAX_COLUMNS = 10_000
_MAX_SHAPES = 1_000
_WIDE = 1 << 53
_HUGE = 1 << 63
_KINDS: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "text", list: "json", dict: "json"}
_CELL = re.compile(
    r"(?P<bool>true|True|TRUE|false|False|FALSE)|(?P<int>0|-?[1-9][0-9]{0,18})"
    r"|(?P<float>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]{1,2})?|[eE][+-]?[0-9]{1,2}))"
)
_EXACT_DIGITS = 15


def column_type(kinds: set[Kind], *, mixed: Literal["json", "string"]) -> str:
    """What values of these kinds are together."""
    if kinds <= {"text"}:
        return "string"
    if kinds == {"bool"}:
        return "bool"
    if kinds <= {"int", "wide"}:
        return "int64"
    return "double" if kinds <= {"int", "float"} else mixed


class ValueKinds:
    """The kinds of values that the columns of JSON objects have been seen to hold."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Kind]] = {}
        self._shapes: dict[tuple[object, ...], tuple[str, ...]] = {}

    def add(self, columns: Mapping[str, Any]) -> None:
        # Most rows look alike: what was learnt from a shape need not be learnt again, but for large numbers.
        shape = (*columns, *map(type, columns.values()))
        numbers = self._shapes.get(shape)
        if numbers is None:
            numbers = self._learn(shape, columns)
        for name in numbers:
            if not -_WIDE <= columns[name] <= _WIDE:
                self._kinds[name].add("wide" if -_HUGE <= columns[name] < _HUGE else "huge")

    def _learn(self, shape: tuple[object, ...], columns: Mapping[str, Any]) -> tuple[str, ...]:
        for name, value in columns.items():
            kinds = self._kinds.setdefault(name, set())
            if value is not None:
                kinds.add(_KINDS[type(value)])
        _refuse_too_many(self._kinds)
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        numbers = tuple(name for name, value in columns.items() if type(value) is int)
        self._shapes[shape] = numbers
        return numbers

    def types(self) -> dict[str, str]:
        return {name: column_type(kinds, mixed="json") for name, kinds in self._kinds.items()}


class CellKinds:
    """The kinds of values that cells of text have been seen to spell; those of an empty cell say nothing."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Kind]] = {}

    def add(self, columns: Mapping[str, str | None]) -> None:
        for name, cell in columns.items():
            kinds = self._kinds.get(name)
            if kinds is None:
                kinds = self._kinds[name] = set()
                _refuse_too_many(self._kinds)
            if cell is not None and "text" not in kinds:
                kinds.add(_cell_kind(cell))

    def types(self) -> dict[str, str]:
        return {name: column_type(kinds, mixed="string") for name, kinds in self._kinds.items()}


def _cell_kind(cell: str) -> Kind:
    match = _CELL.fullmatch(cell)
    if match is None:
        return "text"
    if match.lastgroup == "bool":
        return "bool"
    if match.lastgroup == "int":
        number = abs(int(cell))
        return "int" if number <= _WIDE else "wide" if number < _HUGE else "text"
    exact = sum(map(str.isdigit, cell)) <= _EXACT_DIGITS or repr(float(cell)) == cell
    return "float" if exact else "text"


def _refuse_too_many(columns: Mapping[str, object]) -> None:
    if len(columns) > MAX_COLUMNS:
        raise JobError(
            f"the rows have more than {MAX_COLUMNS:,} different columns; put open-ended keys into one object"
        )


_BOOLS = {"true": True, "false": False}
CELL_READERS: dict[str, Callable[[str], Any]] = {
    "int64": int,
    "double": float,
    "bool": lambda cell: _BOOLS[cell.lower()],
}
"""From a cell's text to its value, for the types that are not text."""
