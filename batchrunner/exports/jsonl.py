"""One JSON object per row: times as ISO text, null where a value is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    rows = 0
    for batch in batches:
        file.writelines(orjson.dumps(row, default=_text, option=OPTIONS) for row in batch.to_pylist())
        rows += batch.num_rows
    return rows


def _text(value: Any) -> str:
    """Values that JSON has no word for, such as decimals and bytes."""
    return value.hex() if isinstance(value, bytes) else str(value)
