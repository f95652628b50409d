"""What the files themselves say about their columns, put together."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources._hive import with_partitions
from batchrunner.sources._identity import found, id_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.sources._input import Input
    from batchrunner.sources.base import File


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Columns known before any row is read. `schema` is of formats that declare types."""

    types: dict[str, str]
    schema: pa.Schema | None = None


def declared_columns(source: Input) -> Declared:
    """What the files of an input declare. Raises JobError with the faults of all files."""
    schemas: dict[File, pa.Schema] = {}
    faults: list[str] = []
    for file in source.parts:
        try:
            schema = source.source.schema(file)
        except JobError as error:
            faults += error.faults
            continue
        if schema is not None:
            schemas[file] = schema
            faults += _id_faults(file, schema, source.id_column)
    if faults:
        raise JobError(*faults)
    if source.source.columns_are != "declared":
        return Declared(types={name: "string" for schema in schemas.values() for name in schema.names})
    schema = with_partitions(_together(schemas), source.partitions)
    return Declared(types={field.name: str(field.type) for field in schema}, schema=schema)


def _id_faults(file: File, schema: pa.Schema, id_column: str | None) -> Iterator[str]:
    name = next((name for name in id_names(id_column) if name in schema.names), None)
    if name is not None:
        if not _names_items(schema.field(name).type):
            yield (
                f"{file.name}: column {name!r} is {schema.field(name).type}; "
                "ids are text or whole numbers: cast it, or name another column with input.id"
            )
    elif id_column is not None:
        near = difflib.get_close_matches(id_column, schema.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{file.name}: no column {id_column!r} for the id{hint} (found: {found(schema.names)})"


def _names_items(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _names_items(kind.value_type)
    return is_text(kind) or bool(pa.types.is_integer(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _together(schemas: dict[File, pa.Schema]) -> pa.Schema:
    whole = pa.schema([])
    for file, schema in schemas.items():
        try:
            whole = pa.unify_schemas([whole, schema.remove_metadata()], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise JobError(f"{file.name}: its columns are not those of the files before it: {error}") from None
    return whole
