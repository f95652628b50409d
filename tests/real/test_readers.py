"""Typed columns opened by others: each keeps the type that the schema declares, whatever the answers held."""

from __future__ import annotations

import json

import polars as pl
import pytest
from driving import batchrunner, prompts, write_rows
from faulty_server import serve_in_thread
from real import needs

pytestmark = pytest.mark.real

SCHEMA = {
    "type": "object",
    "properties": {
        "never": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "who": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
        "sure": {"type": "number"},
    },
}
ANSWER = {"never": None, "tags": [], "who": {"name": "Ana", "age": 3}, "sure": 1}


def test_the_table_opens_unchanged_in_polars_duckdb_and_pandas(tmp_path):
    for package in ("duckdb", "pandas"):
        needs.package(package, "pip install 'batchrunner[real]'")
    import duckdb
    import pandas as pd

    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    message = {"role": "assistant", "content": json.dumps(ANSWER)}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    with serve_in_thread() as server:
        server.default = lambda _: {"status": 200, "body_json": body}
        words = ["run", rows, "--provider", "tess", "--agent-id", 1, "--base-url", server.url, "--json"]
        ended = batchrunner(*words, "--set", "expect.schema=file:schema.json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    path = tmp_path / ended.summary["results"]

    table = pl.read_parquet(path)
    seen = dict(duckdb.sql(f"select column_name, column_type from (describe select * from '{path}')").fetchall())
    frame = pd.read_parquet(path)

    names = ("out_never", "out_tags", "out_who", "out_sure")
    assert [table.schema[name] for name in names] == [
        pl.Int64,
        pl.List(pl.String),
        pl.Struct({"name": pl.String, "age": pl.Int64}),
        pl.Float64,
    ]
    assert [seen[name] for name in names] == ["BIGINT", "VARCHAR[]", 'STRUCT("name" VARCHAR, age BIGINT)', "DOUBLE"]
    assert len(frame) == table.height == duckdb.sql(f"select count(*) from '{path}'").fetchall()[0][0] == 3
    assert frame["out_who"][0] == {"name": "Ana", "age": 3}
    assert frame["out_sure"].tolist() == [1.0] * 3
    assert list(frame["out_tags"][0]) == []
