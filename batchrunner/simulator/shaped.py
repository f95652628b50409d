"""Answers by a JSON Schema, and at a rate wrong ones, as models give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.simulator.chance import another, share

if TYPE_CHECKING:
    from collections.abc import Mapping

DEEPEST = 8


def shaped(schema: Mapping[str, Any], topic: str, lot: bytes, *, invalid_rate: float) -> str:
    """A valid instance of the schema as text, sometimes in a fence; at `invalid_rate` one that is not valid."""
    if share(another(lot, 101)) < invalid_rate:
        return _wrong(schema, topic, lot)
    text = orjson.dumps(_instance(schema, schema, topic, lot, 0)).decode()
    return f"Here is the answer:\n```json\n{text}\n```" if lot[20] % 4 == 0 else text


def _wrong(schema: Mapping[str, Any], topic: str, lot: bytes) -> str:
    if lot[21] % 3 == 0:
        return f'I am not sure about "{topic}".'
    found = _instance(schema, schema, topic, lot, 0)
    if lot[21] % 3 == 1 or not isinstance(found, dict) or not found:
        return orjson.dumps([topic]).decode()
    found.pop((schema.get("required") or sorted(found))[0], None)
    return orjson.dumps(found).decode()


def _instance(schema: Any, root: Mapping[str, Any], topic: str, lot: bytes, depth: int) -> Any:
    schema = _resolved(schema, root)
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    lot = another(lot, depth)
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list) and schema[name] and "type" not in schema:
            return _instance(schema[name][0], root, topic, lot, depth + 1)
    if schema.get("enum"):
        return schema["enum"][lot[0] % len(schema["enum"])]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    return _of_kind(kind[0] if isinstance(kind, list) and kind else kind, schema, root, topic, lot, depth)


def _of_kind(kind: Any, schema: Any, root: Mapping[str, Any], topic: str, lot: bytes, depth: int) -> Any:
    low = schema.get("minimum", 0)
    match kind:
        case "object":
            properties = (schema.get("properties") or {}).items()
            return {
                name: _instance(inner, root, topic, another(lot, number), depth + 1)
                for number, (name, inner) in enumerate(properties)
            }
        case "array":
            count = max(schema.get("minItems", 0), min(lot[1] % 3, schema.get("maxItems", 3)))
            return [_instance(schema.get("items"), root, topic, another(lot, at), depth + 1) for at in range(count)]
        case "integer":
            return int(low) + lot[2] % (int(schema.get("maximum", low + 9)) - int(low) + 1)
        case "number":
            return round(low + share(lot) * (schema.get("maximum", low + 1) - low), 3)
        case "boolean":
            return bool(lot[3] % 2)
        case "null":
            return None
    text = topic[: schema.get("maxLength", len(topic))]
    return text.ljust(schema.get("minLength", 0), ".")


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """What a reference within the document means."""
    for _ in range(DEEPEST):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            break
        target: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target.get(step) if isinstance(target, dict) and step else target
        schema = target
    return schema
