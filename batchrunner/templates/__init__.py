"""From a row to what it asks: templates over a row's columns, or the row itself as a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError
from batchrunner.spec import ROW_FIELDS as REQUEST_FIELDS
from batchrunner.templates._asks import ask_of
from batchrunner.templates._fields import Compiler
from batchrunner.templates._rows import apart_from_results, said_by_row
from batchrunner.templates._sandbox import names_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = ["Asker", "compile_request", "REQUEST_FIELDS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What every row asks."""

    asked: Mapping[str, Any]
    """The job's part of it, flat, with file contents in place of their names and the parameters that are read."""
    request_columns: frozenset[str]
    """Columns that are part of a request and thus not carried into the results."""
    names: frozenset[str]
    """Columns that templates read."""
    make: Callable[[Mapping[str, Any]], dict[str, Any]]

    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The ask of a row, for `Provider.build`. Raises BadRow."""
        return self.make(columns)


def compile_request(
    request: Mapping[str, Any], *, params: Mapping[str, str], base: Path, columns: Collection[str]
) -> Asker:
    """Compile a job's `[request]` for rows with these columns. Raises JobError with every fault found.

    With a prompt or messages, rows are data that templates read; else every row is a request and
    `[request]` holds its defaults. Files are relative to `base`. What rows hold is never compiled.
    """
    rows_are_data = "prompt" in request or "messages" in request
    compiler = Compiler(params=params, base=base, columns=columns if rows_are_data else None)
    volatile = tuple(request.get("volatile") or ())
    for name, value in request.items():
        if name != "volatile":
            compiler.add(name, value, volatile=volatile)
    if compiler.faults:
        raise JobError(*compiler.faults)
    asked = {**compiler.asked, **({"request.volatile": list(volatile)} if volatile else {})}
    if rows_are_data:
        return Asker(
            asked=asked, request_columns=frozenset(), names=frozenset(compiler.names), make=_of_data(compiler, params)
        )
    return Asker(
        asked=asked,
        request_columns=apart_from_results(columns),
        names=frozenset(),
        make=_of_requests(compiler.constants),
    )


def _of_data(compiler: Compiler, params: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    constants, made, names = compiler.constants, compiler.made, tuple(compiler.names)

    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        seen = names_for(columns, names, params)
        return ask_of(constants | {name: each(seen) for name, each in made.items()})

    return make


def _of_requests(defaults: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    extra = defaults.get("extra") or {}

    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        said = said_by_row(columns)
        if extra and isinstance(said.get("extra"), dict):
            said["extra"] = extra | said["extra"]
        return ask_of({**defaults, **said})

    return make
