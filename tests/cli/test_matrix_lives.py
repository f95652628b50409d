"""A matrix through stops and kills, with conversations and with typed columns: nothing is lost or bought twice."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from counting_server import counting
from driving import api, batchrunner, finish, start, write_rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

JOB = """
name = "eval"
[input]
path = "cases.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[matrix]
agent_id = [1, 2]
repeats = 3
{prompt}
[limits]
requests_per_minute = "none"
concurrency = 8
{more}
"""
PROMPTS = 'prompt = { a = "A {{ question }}", b = "B {{ question }}" }'
TURNS = 'turns = { one = ["{{ question }}"], two = ["{{ question }}", "Are you sure?"] }'


def write_job(folder: Path, url: str, prompt: str = PROMPTS, more: str = "") -> Path:
    write_rows(folder / "cases.jsonl", [{"id": f"c{number}", "question": f"q{number}"} for number in range(20)])
    job = folder / "job.toml"
    job.write_text(JOB.format(url=url, prompt=prompt, more=more))
    return job


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_a_matrix_that_is_ended_early_goes_on_where_it_was(tmp_path, kind):
    with counting(latency=0.05) as server:
        job = write_job(tmp_path, server.url)
        process = start("run", job)
        while server.answered() < 20 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(kind)
        finish(process)
        again = batchrunner("run", job, "--json")
        books = server.books()

    assert again.code == 0, again.err
    table = pl.read_parquet(again.summary["results"])
    assert table.height == table["item_id"].n_unique() == 240
    assert table["status"].unique().to_list() == ["succeeded"]
    # Each question comes from two agents, three times: six requests that the server cannot tell apart.
    sent = sum(books.asked.values())
    assert 240 <= sent <= 240 + 8
    assert table["request_key"].n_unique() == 240


def test_variants_may_be_conversations_of_different_length(tmp_path):
    with counting() as server:
        ended = batchrunner("run", write_job(tmp_path, server.url, TURNS))
        asked = server.books().asked.total()

    assert ended.code == 0, ended.err
    assert asked == 20 * 2 * 3 * (1 + 2)
    table = ended.table()
    lengths = table.group_by("variant").agg(
        pl.col("turns").str.json_decode(pl.List(pl.Struct({"text": pl.String}))).list.len().unique()
    )
    assert {row[0]: row[1] for row in lengths.iter_rows()} == {"one+1": [1], "one+2": [1], "two+1": [2], "two+2": [2]}


def test_typed_columns_are_scored_by_their_fields(tmp_path):
    more = """
[expect]
response_format = "json_schema"
[expect.schema]
type = "object"
required = ["label", "size"]
properties.label = { enum = ["small", "large"] }
properties.size = { type = "integer", minimum = 0, maximum = 9 }
[[score]]
name = "small"
kind = "exact"
field = "label"
expected = "small"
[[score]]
name = "size"
kind = "python"
function = "sizes:size"
"""
    (tmp_path / "sizes.py").write_text("def size(row):\n    return row['out_size']\n")
    with api(tmp_path / "api.log", invalid_rate=0.2) as server:
        ended = batchrunner("run", write_job(tmp_path, server.url, more=more), "--max-failed", "50%")

    assert ended.code == 0, ended.err
    table = ended.table()
    good = table.filter(pl.col("status") == "succeeded")
    assert good.height > 200
    assert good.select((pl.col("scores").struct.field("small") == (pl.col("out_label") == "small")).all()).item()
    assert good.select((pl.col("scores").struct.field("size") == pl.col("out_size")).all()).item()
    assert table.filter(pl.col("status") != "succeeded")["scores"].struct.field("size").is_null().all()
