"""Runs and variants held against each other, as a person asks for it."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from driving import batchrunner, write_rows

if TYPE_CHECKING:
    from driving import Ended

ROOT = Path(__file__).parents[2]
NASTY = ["a\x1b[2Jb", "日本語の名前" * 8, "x" * 200, "\u202egnp", ""]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the sample job: two prompts, two agents, fifty cases; graded by its judge."""
    home = tmp_path_factory.mktemp("matrix")
    for folder in ("jobs", "sample_data"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("runs"))
    job, judge = home / "jobs/prompt_matrix.toml", home / "jobs/prompt_judge.toml"
    ended = batchrunner("run", job, "--simulate", "--rpm", "none")
    assert ended.code == 0, ended.err
    results = home / "runs/prompt-matrix.simulated/results.parquet"
    judged = batchrunner("run", judge, "--simulate", "--rpm", "none", "--set", f"input.path={results}")
    assert judged.code == 0, judged.err
    again = batchrunner("reparse", job, "--simulate")
    assert again.code == 0, again.err
    return home / "runs/prompt-matrix.simulated"


def made(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """A simulated run of rows that are requests; their other columns ride along."""
    write_rows(folder / f"{name}.jsonl", rows)
    words = ["--simulate", "--rpm", "none", "--provider", "tess", "--agent-id", 1, "--out", folder / name]
    ended = batchrunner("run", folder / f"{name}.jsonl", *words)
    assert ended.code == 0, ended.err
    return folder / f"{name}.simulated"


def width(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in line)


def test_variants_of_the_sample_job_are_told_apart_in_eighty_columns(matrix):
    ended = batchrunner("compare", matrix)

    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert max(map(width, lines)) <= 80
    for variant in ("direct+8794", "direct+8796", "careful+8794", "careful+8796"):
        assert sum(line.startswith(variant) for line in lines) >= 1
    for heading in ("GROUPS", "SCORES", "AGAINST THE BASELINE", "CASES THAT DIFFER"):
        assert heading in lines
    # Both agents answer the same in the simulator: nothing is won by an agent alone.
    assert any(line.split()[:4] == ["grade", "direct+8796", "0", "0"] for line in lines), ended.out


def test_the_object_has_all_figures(matrix):
    found = batchrunner("compare", matrix, "--json", "--baseline", "careful+8794").summary

    assert (found["type"], found["by"], found["baseline"]) == ("comparison", "variant", "careful+8794")
    assert [group["items"] for group in found["groups"]] == [50] * 4
    grades = [mean for mean in found["means"] if mean["score"] == "grade"]
    assert all(mean["cases"] == 50 and 1 <= mean["interval"]["low"] <= mean["mean"] <= 5 for mean in grades)
    for pairing in found["pairings"]:
        assert pairing["won"] + pairing["lost"] + pairing["tied"] == pairing["cases"]
    differing = found["differing"][0]
    assert {*differing["scores"]} == {"right", "brief", "grade"}
    assert {*differing["items"]} == {group["name"] for group in found["groups"]}


def test_a_report_has_the_groups_too(matrix):
    ended = batchrunner("report", matrix, "--by", "agent_id")

    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert max(map(width, lines)) <= 80
    assert lines.index("FAILURES") < lines.index("GROUPS") < lines.index("SCORES") < lines.index("LATENCY")
    assert any(line.startswith("8796 ") for line in lines)


def test_runs_are_compared_by_item(tmp_path):
    rows = [{"id": f"r{number}", "prompt": f"question {number}", "shade": "dark"} for number in range(6)]
    one = made(tmp_path, "one", rows)
    two = made(tmp_path, "two", [{**row, "prompt": f"Say {row['prompt']}"} for row in rows[:4]])

    plain = batchrunner("compare", one, two)
    both = batchrunner("compare", one, two, "--by", "shade", "--json").summary

    assert plain.code == 0, plain.err
    assert "The groups do not agree on 4 of 6 cases." in plain.out
    assert [group["name"] for group in both["groups"]] == ["one.simulated dark", "two.simulated dark"]


def test_names_that_try_to_be_more_stay_within_a_line(tmp_path):
    rows = [
        {"id": f"{number}{name[:9]}", "prompt": f"question {number}", "kind": name, "case_id": f"c{number}{name}"}
        for number in range(3)
        for name in NASTY
    ]
    run = made(tmp_path, "nasty", rows)

    ended = batchrunner("compare", run, "--by", "kind")

    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out
    assert "No case is in several groups" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def asked(*words: object) -> Ended:
    return batchrunner("compare", *words)


def test_what_cannot_be_compared_is_said(tmp_path, matrix):
    run = made(tmp_path, "plain", [{"id": "a", "prompt": "x"}])

    for ended, code, said in (
        (asked(run), 2, "one run without variants: give another RUN to compare it with, or --by COLUMN"),
        (asked(run, "--by", "mdel"), 2, "did you mean 'model'?"),
        (asked(matrix, "--baseline", "direct"), 2, "no such group"),
        (asked(matrix, "--by", "item_id"), 2, "more than 50 groups"),
        (asked(tmp_path / "nothing"), 10, "no such run directory or job file"),
        (asked(), 2, "Missing argument"),
        (batchrunner("report", matrix, "--by", "vriant"), 2, "did you mean 'variant'?"),
    ):
        assert ended.code == code, ended.err
        assert said in ended.err


def test_the_page_is_whole_and_escaped(tmp_path, matrix):
    page = tmp_path / "page.html"

    ended = batchrunner("compare", matrix, "--html", page)

    assert (ended.code, ended.out.strip()) == (0, str(page)), ended.err
    text = page.read_text()
    assert text.count("<svg ") == 3 * 2
    assert "<script" not in text
    assert "Against direct+8794" in text
    assert json.dumps(page.stat().st_mode & 0o777) == str(0o640)
