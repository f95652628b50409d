"""Formats: exact where they can be, harmless where they are opened."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import exports
from batchrunner.errors import JobError
from batchrunner.report import matching

SCHEMA = pa.schema(
    [("item_id", pa.string()), ("text", pa.string()), ("n", pa.int64()), ("at", pa.timestamp("us", "UTC"))]
)
ROWS = [
    {"item_id": "a", "text": "=HYPERLINK(1)", "n": -5, "at": datetime(2026, 11, 20, tzinfo=UTC)},
    {"item_id": "b", "text": "Grüße\n\u202e\x00", "n": None, "at": None},
]
BATCHES = [pa.RecordBatch.from_pylist(ROWS, SCHEMA)]


def written(kind: str) -> bytes:
    file = io.BytesIO()
    assert exports.load(kind).write(BATCHES, SCHEMA, file) == 2
    return file.getvalue()


def test_every_format_is_listed():
    assert exports.available() == ["csv", "jsonl", "openai-batch", "parquet"]


def test_parquet_keeps_everything_exact():
    table = pq.read_table(io.BytesIO(written("parquet")))

    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == ROWS


def test_jsonl_is_one_object_per_row():
    first, second = (json.loads(line) for line in written("jsonl").splitlines())

    assert first == {"item_id": "a", "text": "=HYPERLINK(1)", "n": -5, "at": "2026-11-20T00:00:00Z"}
    assert second["n"] is None
    assert second["text"] == "Grüße\n\u202e\x00"


def test_csv_disarms_formulas_and_leaves_numbers_alone():
    rows = list(csv.reader(io.StringIO(written("csv").decode())))

    assert rows[1] == ["a", "'=HYPERLINK(1)", "-5", "2026-11-20T00:00:00+00:00"]
    assert rows[2][2] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_disarms_whatever_a_spreadsheet_would_compute_also_in_a_head(start):
    schema, file = pa.schema([(f"{start}name", pa.string())]), io.BytesIO()
    exports.load("csv").write([pa.RecordBatch.from_pylist([{f"{start}name": f"{start}1+1"}], schema)], schema, file)

    rows = list(csv.reader(io.StringIO(file.getvalue().decode(), newline="")))

    assert rows == [[f"'{start}name"], [f"'{start}1+1"]]


def test_rows_are_chosen_by_an_sql_expression():
    frames = list(matching(BATCHES, "n is null"))

    assert [frame["item_id"].to_list() for frame in frames] == [["b"]]


@pytest.mark.parametrize(
    ("where", "hint"), [("item_ids = 'a'", "did you mean 'item_id'?"), ("n >", "expected a polars SQL")]
)
def test_a_bad_expression_says_what_would_be_right(where, hint):
    with pytest.raises(JobError) as fault:
        list(matching(BATCHES, where))

    assert hint in str(fault.value)
