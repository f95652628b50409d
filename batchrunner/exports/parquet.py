"""Parquet, with the declared types."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
