"""An answer held against what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import jsonschema_rs
import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.expect.columns import columns_of, fitting
from batchrunner.expect.finding import candidates

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batchrunner.records import Completion

_NAMED = 5
"""So many faults of an answer are named."""
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an answer is not what was expected."""

    error_type: Literal["invalid_output", "length"]
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A schema, and what follows from it."""

    schema: Mapping[str, Any]
    prefix: str
    allow_length: bool
    validator: Any = field(repr=False)
    columns: Mapping[str, pa.Field] = field(repr=False)
    """By the property's name; "" for an answer that is one column as a whole."""

    def fault(self, completion: Completion) -> Fault | None:
        """What is wrong with an answer, None for nothing."""
        if completion.finish_reason == "length" and not self.allow_length:
            return Fault(error_type="length", said="the answer was cut at its token limit; raise request.max_tokens")
        try:
            self._valid(completion.text or "")
        except ValueError as error:
            return Fault(error_type="invalid_output", said=str(error))
        return None

    def values(self, text: str | None) -> list[Any] | None:
        """What an answer's text puts into the columns, in their order; None where it is not as expected."""
        try:
            found = self._valid(text or "")
            return [fitting(_part(found, name), column.type) for name, column in self.columns.items()]
        except ValueError:
            return None

    def _valid(self, text: str) -> Any:
        """The value that a text means. Raises ValueError that says what is wrong with it."""
        first, found_any = None, False
        for value in candidates(text):
            if self.validator.is_valid(value):
                self._check_fits(value)
                return value
            if not found_any:
                first, found_any = value, True
        if not found_any:
            raise ValueError("no JSON was found in the answer")
        raise ValueError(self._named(first))

    def _check_fits(self, value: Any) -> None:
        for name, column in self.columns.items():
            fitting(_part(value, name), column.type)

    def _named(self, value: Any) -> str:
        faults: list[str] = []
        for error in self.validator.iter_errors(value):
            if len(faults) == _NAMED:
                faults.append("and more")
                break
            at = ".".join(map(str, error.instance_path))
            faults.append(f"{at}: {error.message[:_SHOWN]}" if at else error.message[:_SHOWN])
        return "; ".join(faults)

    def derived(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Results with the columns of the answers in them; null for items that did not succeed."""
        texts, statuses = batch["text"].to_pylist(), batch["status"].to_pylist()
        rows = [
            self.values(text) if status == "succeeded" else None for text, status in zip(texts, statuses, strict=True)
        ]
        arrays = [
            pa.array([None if row is None else row[number] for row in rows], column.type)
            for number, column in enumerate(self.columns.values())
        ]
        names = [*batch.schema.names, *(column.name for column in self.columns.values())]
        return pa.RecordBatch.from_arrays([*batch.columns, *arrays], names)


def _part(value: Any, name: str) -> Any:
    """What goes into a column; None of a value without such a property, an object or not."""
    if not name:
        return value
    return value.get(name) if isinstance(value, dict) else None


def expectation(
    schema: Mapping[str, Any], *, prefix: str, allow_length: bool, taken: Collection[str] = ()
) -> Expectation:
    """Raises JobError for what is no schema, one that refers to another document, and columns that are `taken`."""
    try:
        validator = jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
    except jsonschema_rs.ValidationError as error:
        at = ".".join(map(str, error.instance_path))
        where = f"expect.schema.{at}" if at else "expect.schema"
        raise JobError(f"{where}: {error.message}") from error
    except ValueError as error:
        raise JobError(f"expect.schema: {error}") from error
    columns = columns_of(schema, prefix)
    for name in sorted({column.name for column in columns.values()} & set(taken)):
        raise JobError(f"expect.prefix: a column {name!r} is there already; give another prefix")
    return Expectation(schema=schema, prefix=prefix, allow_length=allow_length, validator=validator, columns=columns)


def _refuse(address: str) -> NoReturn:
    raise ValueError(f"{address} is another document, and none is fetched; put it into the schema")
