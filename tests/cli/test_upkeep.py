"""fsck, --salvage and clean, as their users meet them."""

from __future__ import annotations

import json

import polars as pl
import pytest
from driving import api, batchrunner, prompts, run_words, write_rows


@pytest.mark.slow
def test_damage_is_found_refused_and_salvaged_and_only_what_was_lost_is_bought_again(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(60))
    run = tmp_path / "run"
    with api(tmp_path / "api.jsonl") as tess:
        words = run_words(rows, tess.url, "--out", run, "--json")
        batchrunner(*words, "--limit", 20)
        batchrunner(*words)
        part = max((run / "parts").glob("*.parquet"))
        part.write_bytes(part.read_bytes()[:-100])

        checked = batchrunner("fsck", run)
        refused = batchrunner(*words)
        sent = len(tess.seen())
        salvaged = batchrunner(*words, "--salvage")

        assert (checked.code, checked.out) == (10, "")
        assert checked.err.count("\n") == 1
        assert "run again with --salvage" in checked.err
        assert refused.code == 10
        assert sent == 60
        assert salvaged.code == 0, salvaged.err
        assert "salvaged: " in salvaged.out + salvaged.err
        assert len(tess.seen()) == 100
    cleaned = batchrunner("clean", run, "--drop-responses", "--json")
    assert cleaned.code == 0, cleaned.err
    assert json.loads(cleaned.out)["outcomes"] == 0
    assert not list(run.rglob("*.damaged"))
    assert pl.read_parquet(run / "results.parquet")["response"].null_count() == 60
    sound = batchrunner("fsck", run, "--json")
    assert sound.code == 0, sound.err
    assert json.loads(sound.out)["finished"] == 60


@pytest.mark.slow
def test_results_made_after_a_cleaning_have_todays_places_of_rows_that_moved(tmp_path):
    asked, run = prompts(12), tmp_path / "run"
    rows = write_rows(tmp_path / "rows.jsonl", asked)
    with api(tmp_path / "api.jsonl") as tess:
        words = run_words(rows, tess.url, "--out", run, "--json")
        batchrunner(*words)
        write_rows(rows, reversed(asked))
        batchrunner(*words)
        assert batchrunner("clean", run, "--drop-responses").code == 0
        (run / "results.parquet").unlink()
        again = batchrunner(*words)

        assert again.code == 0, again.err
        assert len(tess.seen()) == 12
    found = pl.read_parquet(run / "results.parquet")
    assert found["item_id"].to_list() == [row["id"] for row in reversed(asked)]
    assert found["input_line"].to_list() == list(range(1, 13))
