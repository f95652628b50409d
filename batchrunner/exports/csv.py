"""CSV for spreadsheets: a text that would be taken for a formula gets a leading apostrophe."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    rows = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow([_cell(name) for name in schema.names])
        for batch in batches:
            writer.writerows([_cell(value) for value in row.values()] for row in batch.to_pylist())
            rows += batch.num_rows
    finally:
        text.detach()
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return value
