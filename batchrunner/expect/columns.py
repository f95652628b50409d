"""From a JSON Schema to declared Arrow columns, and from a valid value to what goes into them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT = pa.string()
_SCALARS = {"string": TEXT, "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
_KINDS: Sequence[tuple[type, pa.DataType]] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (str, TEXT),
)
_DEEPEST = 20
_SHOWN = 100
_Within: TypeAlias = tuple[str, ...]
"""The references that led to a schema, and "" for each step into one: so deep it is."""
_LARGEST = 2**63


def columns_of(schema: Mapping[str, Any], prefix: str) -> dict[str, pa.Field]:
    """A column for each property of the object that is expected, or one for an answer that is none.

    By the property's name; "" where the answer as a whole is the column. What has no single type is JSON as text.
    """
    root, within = _resolved(schema, schema, ("#",))
    properties = root.get("properties") if isinstance(root, dict) else None
    if isinstance(properties, dict) and properties and "" not in properties:
        return {
            name: pa.field(f"{prefix}{name}", _type_of(inner, schema, within)) for name, inner in properties.items()
        }
    return {"": pa.field(f"{prefix}value", _type_of(root, schema, within[:-1]))}


def _resolved(schema: Any, root: Mapping[str, Any], within: _Within) -> tuple[Any, _Within]:
    """The schema that a reference within the same document means; None for one that is being resolved already."""
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        reference = schema["$ref"]
        if reference in within or _is_apart(schema, root):
            return None, within
        target: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, dict) and step else target
        schema, within = target, (*within, reference)
    return schema, within


def _is_apart(schema: Any, root: Mapping[str, Any]) -> bool:
    """A document within the document: its references are its own."""
    return "$id" in schema and schema is not root


def _type_of(schema: Any, root: Mapping[str, Any], within: _Within) -> pa.DataType:
    schema, within = _resolved(schema, root, (*within, ""))
    if not isinstance(schema, dict) or len(within) > _DEEPEST or "$id" in schema:
        return (
            TEXT  # One that refers to itself has no type of bounded depth, one with an $id has references of its own.
        )
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list) and "type" not in schema:
            return _common([_type_of(one, root, within) for one in schema[name] if not _is_null(one, root)])
    if "enum" in schema or "const" in schema:
        return _of_values(schema.get("enum") or [schema.get("const")])
    kinds = schema.get("type")
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    if set(named) == {"integer", "number"}:
        return pa.float64()
    if len(named) != 1:
        return TEXT
    if named[0] == "array":
        return _list_of(schema, root, within)
    if named[0] == "object":
        return _struct_of(schema, root, within)
    return _SCALARS.get(str(named[0]), TEXT)


def _list_of(schema: Mapping[str, Any], root: Mapping[str, Any], within: _Within) -> pa.DataType:
    items = schema.get("items")
    if not isinstance(items, dict) or "prefixItems" in schema:
        return TEXT
    return pa.list_(_type_of(items, root, within))


def _struct_of(schema: Mapping[str, Any], root: Mapping[str, Any], within: _Within) -> pa.DataType:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return TEXT
    return pa.struct([pa.field(name, _type_of(inner, root, within)) for name, inner in properties.items()])


def _is_null(schema: Any, root: Mapping[str, Any]) -> bool:
    found, _ = _resolved(schema, root, ())
    return isinstance(found, dict) and found.get("type") == "null"


def _common(types: Sequence[pa.DataType]) -> pa.DataType:
    return types[0] if types and all(one == types[0] for one in types) else TEXT


def _of_values(values: Sequence[Any]) -> pa.DataType:
    kinds = [next((kind for python, kind in _KINDS if type(value) is python), None) for value in values]
    known = [kind for kind, value in zip(kinds, values, strict=True) if value is not None]
    return known[0] if known and None not in known and all(kind == known[0] for kind in known) else TEXT


def fitting(value: Any, kind: pa.DataType) -> Any:
    """A valid value as its column holds it. Raises ValueError for what it cannot, such as more than 64 bits."""
    try:
        return _fitting(value, kind)
    except (TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{str(value)[:_SHOWN]} does not fit a column of {kind}") from error


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if kind == TEXT:
        return _unicode(value if isinstance(value, str) else _written(value))
    if pa.types.is_integer(kind):
        if not -_LARGEST <= value < _LARGEST:
            raise ValueError(f"{value} is no number of 64 bits")
        return int(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_list(kind):
        return [_fitting(one, kind.value_type) for one in value]
    if pa.types.is_struct(kind):
        return {field.name: _fitting(value.get(field.name), field.type) for field in kind}
    return value


def _written(value: Any) -> str:
    """As JSON, also what is too deep, or a number too large, for the fast way."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"))


def _unicode(text: str) -> str:
    """Without halves of characters, which no table holds."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
