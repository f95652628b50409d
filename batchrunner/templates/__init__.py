"""From a row to what it asks: templates over a row's columns, or the row itself as a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow, JobError
from batchrunner.spec import ROW_FIELDS as REQUEST_FIELDS
from batchrunner.spec import Matrix, has_question
from batchrunner.templates._asks import ask_of, session_of
from batchrunner.templates._fields import Compiler, Fields
from batchrunner.templates._matrix import compile_variants, varied
from batchrunner.templates._rows import apart_from_results, said_by_row, session_of_row
from batchrunner.templates._sandbox import names_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from batchrunner.templates._matrix import Ask

__all__ = ["Asker", "compile_request", "compile_values", "REQUEST_FIELDS"]

_SESSION_COLUMNS = frozenset({"conversation", "session_id"})


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
    name_session: Callable[[Mapping[str, Any]], str | None] | None = None
    """Names the conversation or session that a row is part of; None where no row is part of one."""
    has_turns: bool = False
    """Whether items may have several turns."""

    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The ask of a row, for `Provider.build`. Raises BadRow."""
        return self.make(columns)


def compile_request(
    request: Mapping[str, Any],
    *,
    params: Mapping[str, str],
    base: Path,
    columns: Collection[str],
    matrix: Matrix | None = None,
) -> Asker:
    """Compile a job's `[request]` for rows with these columns. Raises JobError with every fault found.

    With a prompt, messages or turns, rows are data that templates read; else every row is a request and
    `[request]` holds its defaults. Files are relative to `base`. What rows hold is never compiled. With a `matrix`
    the column `variant` says which of its values an item has; they go before what the row says.
    """
    matrix = matrix or Matrix()
    rows_are_data = has_question({*request, *matrix.fields})
    given: dict[str, Any] = {"params": params, "base": base, "columns": columns if rows_are_data else None}
    compiler, varying = Compiler(**given), Compiler(**given, section="matrix")
    volatile = tuple(request.get("volatile") or ())
    for name, value in request.items():
        if name != "volatile":
            compiler.add(name, value, volatile=volatile)
    variants = compile_variants(matrix, varying)
    if faults := [*compiler.faults, *varying.faults]:
        raise JobError(*faults)
    asked = {
        **compiler.asked,
        **varying.asked,
        **({"request.volatile": list(volatile)} if volatile else {}),
    }
    if rows_are_data:
        names = tuple({**compiler.names, **varying.names})
        return Asker(
            asked=asked,
            request_columns=frozenset(),
            names=frozenset(names),
            make=varied(variants, lambda more: _of_data(compiler.fields | more, names, params)),
            name_session=_session_of_data(compiler, params),
            has_turns="turns" in {*request, *matrix.fields},
        )
    return Asker(
        asked=asked,
        request_columns=apart_from_results(columns),
        names=frozenset(),
        make=varied(variants, lambda more: _of_requests(compiler.fields.constants, more.constants)),
        name_session=None if _SESSION_COLUMNS.isdisjoint(columns) else session_of_row,
        has_turns="turns" in columns,
    )


def _of_data(fields: Fields, names: tuple[str, ...], params: Mapping[str, str]) -> Ask:
    constants, made = fields.constants, fields.made

    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        seen = names_for(columns, names, params)
        return ask_of({**constants, **{name: each(seen) for name, each in made.items()}})

    return make


def _session_of_data(compiler: Compiler, params: Mapping[str, str]) -> Callable[[Mapping[str, Any]], str | None] | None:
    """By the row's own conversation or session: one that the job names for all rows puts none behind another."""
    made = {name: each for name, each in compiler.fields.made.items() if name in ("conversation", "session_id")}
    if not made:
        return None

    def name_session(columns: Mapping[str, Any]) -> str | None:
        seen = names_for(columns, tuple(compiler.names), params)
        said = {name: each(seen) for name, each in made.items()}
        return session_of(said.get("conversation"), said.get("session_id"))

    return name_session


def _of_requests(defaults: Mapping[str, Any], over: Mapping[str, Any]) -> Ask:
    """Of rows that say themselves what they ask: `defaults` where they say nothing, `over` whatever they say."""
    mixes = "extra" in defaults or "extra" in over

    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        said = said_by_row(columns)
        fields = {**defaults, **said, **over}
        extras = [each["extra"] for each in (defaults, said, over) if each.get("extra")] if mixes else []
        if all(isinstance(extra, dict) for extra in extras):
            fields |= {"extra": {name: value for extra in extras for name, value in extra.items()}} if extras else {}
        return ask_of(fields)

    return make


def compile_values(
    values: Mapping[str, Any], *, section: str, params: Mapping[str, str], base: Path, columns: Collection[str]
) -> tuple[Ask, tuple[str, ...]]:
    """What makes a value of each name for a row, and the columns that are read. Raises JobError with every fault found.

    A value is what a template gives where it is a text with one; a `BadRow` where a row does not allow that.
    """
    compilers = {
        name: Compiler(params=params, base=base, columns=columns, section=f"{section}.{name}") for name in values
    }
    fields = {name: compiler.compile("expected", values[name]) for name, compiler in compilers.items()}
    if faults := [fault for compiler in compilers.values() for fault in compiler.faults]:
        raise JobError(*faults)
    names = tuple({name: None for compiler in compilers.values() for name in compiler.names})

    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        seen = names_for(row, names, params)
        return {name: _value_of(each, seen) for name, each in fields.items()}

    return make, names


def _value_of(fields: Fields, seen: dict[str, Any]) -> Any:
    if not fields.made:
        return fields.constants["expected"]
    try:
        return fields.made["expected"](seen)
    except BadRow as error:
        return error
