"""The nightly job on its 1,000 tickets: typed columns, repairs counted, and a second night that buys the difference."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from driving import api, batchrunner

ROOT = Path(__file__).parents[2]
COLUMNS = {
    "out_category": pl.String,
    "out_priority": pl.String,
    "out_sentiment": pl.Float64,
    "out_summary": pl.String,
    "out_churn_risk": pl.Boolean,
}


def grown(tickets: pl.DataFrame) -> pl.DataFrame:
    """Ten edited tickets and a hundred new ones."""
    edited = tickets.head(10).with_columns(subject=pl.col("subject") + " (edited)")
    new = tickets.head(100).with_columns(
        ticket_id=pl.concat_str(pl.lit("new-"), pl.col("ticket_id").cast(pl.String)).cast(tickets["ticket_id"].dtype),
        subject=pl.col("subject") + " (new)",
    )
    return pl.concat([edited, tickets.slice(10), new])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_second_night_sends_what_is_new_or_edited(tmp_path):
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    data, job = tmp_path / "sample_data" / "tickets.parquet", tmp_path / "jobs" / "nightly_enrichment.toml"
    with api(tmp_path / "log", invalid_rate=0.1, latency=0.02) as simulator:
        words = ["run", job, "--rpm", "none", "--base-url", simulator.url, "--max-failed", "5%", "--json"]
        env = {"TESS_API_KEY": "k"}
        first = batchrunner(*words, "--param", "ds=2026-11-20", env=env)
        grown(pl.read_parquet(data)).write_parquet(data)
        second = batchrunner(*words, "--param", "ds=2026-11-21", env=env)

    assert [first.code, second.code] == [0, 0], (first.err, second.err)
    one, two = (pl.read_parquet(night.summary["results"]) for night in (first, second))
    assert {name: one.schema[name] for name in COLUMNS} == COLUMNS
    repaired = one.filter(pl.col("sent_changes").str.starts_with("repaired"))
    assert 50 < len(repaired) < 160
    assert repaired["failed_completion_tokens"].null_count() == 0
    assert first.summary["items"]["rejected"] == one.filter(error_type="invalid_output").height > 0
    # What was rejected the first night is asked again, as is what was never bought.
    left = first.summary["items"]["rejected"]
    assert two.filter(origin="sent").height in range(110, 110 + left + 1)
    assert (
        two.filter(origin="reused").height + two.filter(origin="duplicate").height
        == 1_100 - two.filter(origin="sent").height
    )
    assert second.summary["now"]["sent"] == two.filter(origin="sent")["attempts"].sum()
