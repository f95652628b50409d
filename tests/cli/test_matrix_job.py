"""The sample job of two prompts and two agents: run, judged, scored anew, and compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from driving import batchrunner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VARIANTS = ("direct+8794", "direct+8796", "careful+8794", "careful+8796")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the job's four variants of the fifty questions, graded by its judge."""
    home = tmp_path_factory.mktemp("matrix")
    for folder in ("jobs", "sample_data"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("runs"))
    job, judge = home / "jobs/prompt_matrix.toml", home / "jobs/prompt_judge.toml"
    ended = batchrunner("run", job, "--simulate", "--rpm", "none")
    assert ended.code == 0, ended.err
    assert ended.err.splitlines()[-1].startswith("compare  batchrunner compare ")
    judged = batchrunner("run", judge, "--simulate", "--rpm", "none")
    assert judged.code == 0, judged.err
    assert "the simulated ../runs/prompt-matrix.simulated/results.parquet is read instead" in judged.err
    again = batchrunner("reparse", job, "--simulate")
    assert again.code == 0, again.err
    return home / "runs/prompt-matrix.simulated"


def test_every_item_of_the_matrix_is_graded(matrix):
    table = pl.read_parquet(matrix / "results.parquet")

    assert table.height == 200
    assert table["variant"].unique(maintain_order=True).to_list() == [*VARIANTS]
    assert table["scores"].struct.field("grade").is_between(1, 5).all()
    assert table.filter(pl.col("expected").is_null())["scores"].struct.field("right").is_null().all()


def test_its_variants_are_told_apart(matrix):
    ended = batchrunner("compare", matrix)
    found = batchrunner("compare", matrix, "--json", "--baseline", "careful+8794").summary

    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    for variant in VARIANTS:
        assert any(line.startswith(variant) for line in lines)
    assert (found["by"], found["baseline"]) == ("variant", "careful+8794")
    assert [group["items"] for group in found["groups"]] == [50] * 4
    grades = [standing for standing in found["standings"] if standing["score"] == "grade"]
    assert all(grade["cases"] == 50 and 1 <= grade["interval"]["low"] <= grade["mean"] <= 5 for grade in grades)
    # Both agents answer alike in the simulator: nothing is won by an agent alone.
    agents = batchrunner("compare", matrix, "--by", "agent_id", "--json").summary
    assert {match["difference"] for match in agents["matches"]} == {0.0}
    assert all(match["tied"] == match["cases"] for match in agents["matches"])


def test_wordings_are_compared_over_both_agents(matrix):
    found = batchrunner("compare", matrix, "--by", "prompt", "--json").summary

    assert [(group["name"], group["items"]) for group in found["groups"]] == [("direct", 100), ("careful", 100)]
    assert batchrunner("compare", matrix / "results.parquet", "--by", "prompt").code == 0


def test_its_report_has_the_groups_too(matrix):
    ended = batchrunner("report", matrix, "--by", "agent_id")
    plain = batchrunner("report", matrix)

    assert ended.code == 0, ended.err
    assert any(line.startswith("8796 ") for line in ended.out.splitlines())
    assert any(line.startswith("careful+8796 ") for line in plain.out.splitlines())
