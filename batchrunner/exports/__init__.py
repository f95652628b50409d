"""The table of a run in other formats: one file per format, chosen by its name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


class Export(Protocol):
    """Writes batches of one schema to an open binary file, as they come."""

    def write(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
        """Returns how many rows were written."""


FOLDERS = ("openai-batch",)
"""Formats of several files, which `write_folder` puts into a directory."""


def available() -> list[str]:
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
