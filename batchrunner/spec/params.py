"""Parameters: what a job declares, what the command line gives, and where they stand in a job's strings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batchrunner.spec.faults import Fault, Key, expected, near
from batchrunner.spec.kinds import is_plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_USE = re.compile(r"\{\{\s*params\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_APART = ("params", "request", "matrix")
_BRACES = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{\{|\{%", re.DOTALL)


def given_params(declared: object, given: Mapping[str, str]) -> tuple[dict[str, str], list[Fault]]:
    """Every declared parameter with its value, and what is wrong with them."""
    if not isinstance(declared, dict):
        return {}, []
    faults = [*_undeclared(declared, given)]
    values: dict[str, str] = {}
    for name, default in declared.items():
        said = _value_fault(name, given.get(name, default), is_given=name in given)
        if said is None:
            values[name] = str(given.get(name, default))
        else:
            faults.append(Fault(at=("params", name), said=said))
    return values, faults


def _undeclared(declared: Mapping[str, object], given: Mapping[str, str]) -> Iterator[Fault]:
    for name in given:
        if name not in declared:
            said = f"unknown parameter {name!r}{_known(name, declared)}"
            yield Fault(at=("params", name), said=said)


def _known(name: str, declared: Collection[str]) -> str:
    """The way out for a parameter that is not declared."""
    if not declared:
        return "; [params] declares none"
    return near(name, declared) or f"; [params] declares {', '.join(map(repr, declared))}"


def _value_fault(name: str, value: object, *, is_given: bool) -> str | None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return "expected a name of letters, digits and underscores"
    if value == "":
        return "expected a value, got ''" if is_given else f"it has no default; give --param {name}=VALUE"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return expected("text", value)
    if not is_plain(str(value)):
        return "expected text in UTF-8"
    if not is_given and _BRACES.search(str(value)):
        return "expected plain text: a default cannot use another parameter"
    return None


class Substitution:
    """Puts parameters into strings; keeps the faults and, for each key, the parameters used there.

    `broken` are parameters whose own fault is told already.
    """

    def __init__(self, params: Mapping[str, str], *, broken: Collection[str] = ()) -> None:
        self._params = params
        self._broken = broken
        self.faults: list[Fault] = []
        self.used: dict[Key, list[str]] = {}

    def job(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The job with its parameters in all its strings but those that are templates of their own."""
        return {name: each if name in _APART else self._value(each, (name,)) for name, each in tree.items()}

    def used_in(self, *at: str) -> tuple[str, ...]:
        """The parameters used at a key and below it, in order of first use."""
        return tuple(dict.fromkeys(name for key, names in self.used.items() if key[: len(at)] == at for name in names))

    def _value(self, value: Any, at: Key) -> Any:
        if at[0] == "score" and len(at) > 2 and at[2] != "run":
            return value  # `expected` is a template over a row; nothing else but a place takes a parameter.
        if isinstance(value, dict):
            return {name: self._value(each, (*at, name)) for name, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, (*at, index)) for index, each in enumerate(value)]
        return self._text(value, at) if isinstance(value, str) else value

    def _text(self, text: str, at: Key) -> str:
        literals_and_names = _USE.split(text)
        self.used[at] = literals_and_names[1::2]
        for literal in literals_and_names[::2]:
            if (braces := _BRACES.search(literal)) is not None:
                what = f"only {{{{ params.NAME }}}} can stand in braces here, got {braces[0]!r}"
                self.faults.append(Fault(at=at, said=what))
        return _USE.sub(lambda use: self._param(use[1], use[0], at), text)

    def _param(self, name: str, written: str, at: Key) -> str:
        if name in self._params:
            return self._params[name]
        if name in self._broken:
            return written
        self.faults.append(Fault(at=at, said=f"unknown parameter {name!r}{_known(name, self._params)}"))
        return written
