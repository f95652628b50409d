"""What `[matrix]` may hold: fields of the request with the values that every row is asked with."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from batchrunner.spec.faults import Fault, Key, expected, near
from batchrunner.spec.request import QUESTIONS, REQUEST_KEYS, ROW_FIELDS, field_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPEATS = "repeats"
AXES = ROW_FIELDS - {"conversation", "session_id"}
"""What can vary."""
MOST_ITEMS = 10_000
"""So many items may come of one row."""
ALONE = "base"
"""The variant's name where nothing but repeats is asked for."""
_LONGEST = 80
_FILE = "file:"
_TEXTS = ("prompt", "system")
_FIRST = (*QUESTIONS, "system")
_PLAIN_KEYS = REQUEST_KEYS | {REPEATS}
"""What a value cannot be called: TOML gives a table all keys that stand behind its head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A field of the request, and what it is in turn, by name."""

    field: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Every row, asked in so many ways so many times. Without a variant: every row is one item."""

    axes: Sequence[Axis] = ()
    repeats: int = 1

    def __bool__(self) -> bool:
        return bool(self.axes) or self.repeats > 1

    @property
    def choices(self) -> dict[str, dict[str, str]]:
        """By the variant's name which value of each field it has, by that one's name; the last axis changes first."""
        found = {}
        for names in product(*(axis.values for axis in self.axes)):
            found["+".join(names) or ALONE] = {axis.field: name for axis, name in zip(self.axes, names, strict=True)}
        return found

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(axis.field for axis in self.axes)

    def values_of(self, field: str) -> list[Any]:
        """What a field is in turn; nothing where it does not vary."""
        return [value for axis in self.axes if axis.field == field for value in axis.values.values()]


def matrix_of(table: Mapping[str, Any]) -> Matrix:
    """The matrix that a job's table is, once `matrix_faults` has none.

    What is asked comes first, and the rest by name, whatever the order of the keys: it makes the items' ids.
    """
    names = sorted((name for name in table if name != REPEATS), key=lambda name: (name not in _FIRST, name))
    axes = [Axis(field=name, values=_named(name, table[name])) for name in names]
    return Matrix(axes=axes, repeats=int(table.get(REPEATS, 1)))


def matrix_table(matrix: Matrix) -> dict[str, Any]:
    """The table that `matrix_of` makes the same matrix of."""
    axes: dict[str, Any] = {axis.field: dict(axis.values) for axis in matrix.axes}
    return {**axes, REPEATS: matrix.repeats} if matrix else {}


def matrix_faults(job: Mapping[str, Any]) -> Iterator[Fault]:
    """Everything wrong with a job's `[matrix]`."""
    table, request = job.get("matrix", {}), job.get("request", {})
    if not isinstance(table, dict):
        yield Fault(at=("matrix",), said=expected("a table", table))
        return
    sound = True
    for fault in _table_faults(table, request if isinstance(request, dict) else {}):
        sound = False
        yield fault
    if sound:
        whole = matrix_of(table)
        items = math.prod(len(axis.values) for axis in whole.axes) * whole.repeats
        if items > MOST_ITEMS:
            yield Fault(at=("matrix",), said=f"{items:,} items of every row are more than {MOST_ITEMS:,}")


def _table_faults(table: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[Fault]:
    for name, value in table.items():
        at: Key = ("matrix", name)
        if name == REPEATS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                yield Fault(at=at, said=expected("a whole number above 0", value))
        elif name not in AXES:
            hint = near(name, {*AXES, REPEATS}) or "; an axis is a field of [request], or repeats"
            yield Fault(at=at, said=f"unknown key {name!r} in [matrix]{hint}", alone=True)
        elif any(path == name for path in request.get("volatile") or ()):
            yield Fault(at=at, said=f"{name} is volatile, so its variants would be one question; leave one of them out")
        elif name in request:
            yield Fault(at=at, said=f"{name} stands in [request] too; leave one of them out")
        else:
            yield from _axis_faults(name, value, at)
    questions = [name for name in QUESTIONS if name in table or name in request]
    if len(questions) > 1 and any(name in table for name in questions):
        yield Fault(at=("matrix",), said=f"expected one of {', '.join(QUESTIONS)}, got {' and '.join(questions)}")


def _axis_faults(name: str, value: Any, at: Key) -> Iterator[Fault]:
    if not isinstance(value, list | dict) or not value:
        yield Fault(at=at, said=expected("a list of values, or a table of them by name", value))
        return
    named = [*value.items()] if isinstance(value, dict) else [*enumerate(value)]
    for key, each in named:
        if isinstance(key, str) and key in _PLAIN_KEYS:
            said = (
                f"what stands behind [matrix.{name}] belongs to it; put {key!r} in front, or call the value otherwise"
            )
            yield Fault(at=(*at, key), said=said)
            return
        if isinstance(key, str) and not _is_name(key):
            yield Fault(at=(*at, key), said=f"expected a name of at most {_LONGEST} characters without '/' and '+'")
        if name != "system" or each != "":  # With a system prompt and without one is a comparison too.
            yield from field_faults(name, each, (*at, key))
    if isinstance(value, list):
        names = [_name(name, each, number) for number, each in enumerate(value, 1)]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            yield Fault(at=at, said=f"several values are called {', '.join(map(repr, twice))}; name them in a table")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable() and not {"/", "+"} & {*text} and text == text.strip()


def _named(field: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {_name(field, each, number): each for number, each in enumerate(value, 1)}


def _name(field: str, value: Any, number: int) -> str:
    """What a value of a list is called: what it says where that is short, a file by its name, else its number."""
    if isinstance(value, str) and value.startswith(_FILE):
        return PurePosixPath(value.removeprefix(_FILE).strip()).stem or str(number)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and field not in _TEXTS and "{" not in value:
        name = re.sub(r"[/+\s]+", "_", value.strip())
        return name if _is_name(name) else str(number)
    return str(number)
