"""From a JSON Schema to declared Arrow columns, and from a valid value to what goes into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
_LARGEST = 2**63


def columns_of(schema: Mapping[str, Any], prefix: str) -> dict[str, pa.Field]:
    """A column for each property of the object that is expected, or one for an answer that is none.

    By the property's name; "" where the answer as a whole is the column. What has no single type is JSON as text.
    """
    root = _resolved(schema, schema, 0)
    properties = root.get("properties") if isinstance(root, dict) else None
    if isinstance(properties, dict) and properties:
        return {name: pa.field(f"{prefix}{name}", _type_of(inner, schema, 1)) for name, inner in properties.items()}
    return {"": pa.field(f"{prefix}value", _type_of(root, schema, 0))}


def _resolved(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    """The schema that a reference within the same document means."""
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str) and depth < _DEEPEST:
        target: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, dict) and step else target
        schema, depth = target, depth + 1
    return schema


def _type_of(schema: Any, root: Mapping[str, Any], depth: int) -> pa.DataType:
    schema = _resolved(schema, root, depth)
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return TEXT  # A schema that refers to itself has no type of bounded depth.
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list) and "type" not in schema:
            return _common([_type_of(one, root, depth + 1) for one in schema[name] if not _is_null(one, root)])
    if "enum" in schema or "const" in schema:
        return _of_values(schema.get("enum") or [schema.get("const")])
    kinds = schema.get("type")
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    if set(named) == {"integer", "number"}:
        return pa.float64()
    if len(named) != 1:
        return TEXT
    if named[0] == "array":
        return _list_of(schema, root, depth)
    if named[0] == "object":
        return _struct_of(schema, root, depth)
    return _SCALARS.get(str(named[0]), TEXT)


def _list_of(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> pa.DataType:
    items = schema.get("items")
    return pa.list_(_type_of(items, root, depth + 1)) if isinstance(items, dict) else TEXT


def _struct_of(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> pa.DataType:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return TEXT
    return pa.struct([pa.field(name, _type_of(inner, root, depth + 1)) for name, inner in properties.items()])


def _is_null(schema: Any, root: Mapping[str, Any]) -> bool:
    found = _resolved(schema, root, 0)
    return isinstance(found, dict) and found.get("type") == "null"


def _common(types: Sequence[pa.DataType]) -> pa.DataType:
    return types[0] if types and all(one == types[0] for one in types) else TEXT


def _of_values(values: Sequence[Any]) -> pa.DataType:
    kinds = [next((kind for python, kind in _KINDS if type(value) is python), None) for value in values]
    known = [kind for kind, value in zip(kinds, values, strict=True) if value is not None]
    return known[0] if known and None not in known and all(kind == known[0] for kind in known) else TEXT


def fitting(value: Any, kind: pa.DataType) -> Any:
    """A valid value as its column holds it. Raises ValueError for a number that 64 bits cannot hold."""
    if value is None:
        return None
    if kind == TEXT:
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    if pa.types.is_integer(kind):
        if not -_LARGEST <= value < _LARGEST:
            raise ValueError(f"{value} is no number of 64 bits")
        return int(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_list(kind):
        return [fitting(one, kind.value_type) for one in value]
    if pa.types.is_struct(kind):
        return {field.name: fitting(value.get(field.name), field.type) for field in kind}
    return value
