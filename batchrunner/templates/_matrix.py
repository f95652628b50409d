"""What varies, compiled: for each variant of the matrix what makes the ask of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchrunner.templates._fields import Fields

if TYPE_CHECKING:
    from batchrunner.spec import Matrix
    from batchrunner.templates._fields import Compiler

Ask = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Makes the ask of a row."""


def compile_variants(matrix: Matrix, compiler: Compiler) -> dict[str, Fields]:
    """By its name the fields that each variant sets; nothing where nothing varies. Every value is compiled once."""
    if not matrix:
        return {}
    values = {
        (axis.field, name): compiler.compile(f"{axis.field}.{name}", value)
        for axis in matrix.axes
        for name, value in axis.values.items()
    }
    variants = {}
    for variant, names in matrix.choices.items():
        fields = Fields({}, {})
        for field, name in names.items():
            fields |= values[field, name]
        variants[variant] = fields
    return variants


def varied(variants: Mapping[str, Fields], make: Callable[[Fields], Ask]) -> Ask:
    """What makes the ask of a row with whatever its variant sets. A repeat is part of what is asked."""
    if not variants:
        return make(Fields({}, {}))
    makes = {variant: make(fields) for variant, fields in variants.items()}

    def ask(columns: Mapping[str, Any]) -> dict[str, Any]:
        return {**makes[columns["variant"]](columns), "repeat": columns["repeat"]}

    return ask
