"""`batchrunner compare` and `report --by`: of real runs, live or finished; what is wrong is said with the way out."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driving import batchrunner, write_rows
from report_runs import failed, made, outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from driving import Ended

pytestmark = pytest.mark.slow

CASES = 24


def asked(number: int, variant: str, repeat: int) -> dict[str, object]:
    """A row that carries who it is in a matrix, and what it scored: the longer prompt wins every third case."""
    won = variant == "long" and number % 3 == 0
    scores = None if number == 1 else {"exact": float(won or number % 4 == 1)}
    told = {"case_id": f"c{number}", "variant": variant, "repeat": repeat, "scores": scores}
    return {
        "id": f"c{number}/{variant}/{repeat}",
        "prompt": f"{variant} <b>{number}</b>",
        "model": "gpt-4o-mini",
        **told,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two variants with scores, and two plain ones of the same items without."""
    folder: Path = tmp_path_factory.mktemp("runs")
    rows = [asked(n, variant, repeat) for n in range(CASES) for variant in ("short", "long") for repeat in (1, 2)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "matrix.parquet")
    for name in ("one", "two"):
        write_rows(folder / f"{name}.jsonl", [{"id": f"i{n}", "prompt": f"Say {name} {n}"} for n in range(8)])
    for file, model in (("matrix.parquet", ()), ("one.jsonl", ("gpt-4o-mini",)), ("two.jsonl", ("gpt-4o",))):
        more = ("--model", *model) if model else ()
        words = ("--provider", "openai", "--simulate", "--rpm", "none", "--quiet", "--runs-dir", folder, *more)
        ended = batchrunner("run", folder / file, *words)
        assert ended.code == 0, ended.err
    return folder


def fits(ended: Ended) -> bool:
    return max(map(len, ended.out.splitlines())) <= 80


def test_variants_of_a_run_are_compared_without_being_asked_for(runs: Path):
    ended = batchrunner("compare", runs / "matrix.simulated")

    assert ended.code == 0, ended.err
    assert "long is ahead of short in exact by 0." in ended.out
    assert fits(ended)


def test_two_runs_are_compared_item_by_item(runs: Path):
    ended = batchrunner("compare", runs / "one.simulated", runs / "two.simulated")

    assert ended.code == 0, ended.err
    assert "8 of 8 cases differ." in ended.out
    assert "two succeeded in 100 % of its items, one in 100 %; it costs" in " ".join(ended.out.split())
    assert fits(ended)


def test_all_figures_are_one_object(runs: Path):
    ended = batchrunner("compare", runs / "matrix.simulated", "--json")

    (line,) = ended.out.splitlines()
    found = json.loads(line)
    assert (found["type"], found["by"], found["baseline"]) == ("comparison", "variant", "short")
    assert [(group["name"], group["items"], group["cases"]) for group in found["groups"]] == [
        ("short", 2 * CASES, CASES), ("long", 2 * CASES, CASES),
    ]  # fmt: skip
    (against,) = found["matches"]
    assert (against["won"], against["lost"], against["tied"]) == (6, 0, CASES - 1 - 6)
    assert {each["unscored"] for each in found["standings"]} == {2}
    assert found["verdict"][0].startswith("long is ahead of short")
    assert found["differing_cases"] == len(found["differing"]) == 6


def test_the_same_runs_give_the_same_figures(runs: Path):
    one, other = (batchrunner("compare", runs / "matrix.simulated", "--json").out for _ in range(2))

    assert one == other


def test_another_baseline_turns_it_round(runs: Path):
    ended = batchrunner("compare", runs / "matrix.simulated", "--baseline", "long", "--json")

    found = json.loads(ended.out)
    assert found["groups"][0]["name"] == "long"
    assert (found["matches"][0]["won"], found["matches"][0]["lost"]) == (0, 6)


def test_runs_are_compared_by_a_column_too(runs: Path):
    ended = batchrunner("compare", runs / "one.simulated", runs / "two.simulated", "--by", "finish_reason", "--json")

    assert [group["name"] for group in json.loads(ended.out)["groups"]] == ["one/stop", "two/stop"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (lambda runs: (runs / "matrix.simulated", "--baseline", "shrot"), "no such group; did you mean 'short'?"),
        (lambda runs: (runs / "matrix.simulated", "--by", "varaint"), "no such column; did you mean 'variant'?"),
        (lambda runs: (runs / "one.simulated",), "one run without a column variant: give another RUN, or --by COLUMN"),
        (lambda runs: (runs / "one.simulated", runs / "one.simulated"), "is given twice"),
        (
            lambda runs: (runs / "one.simulated", "--by", "item_id", "--html", runs / "no/x.html"),
            "there is no directory",
        ),
        (lambda _: (), "Missing argument 'RUN...'"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(runs: Path, words: Callable[[Path], tuple[object, ...]], said: str):
    ended = batchrunner("compare", *words(runs))

    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""


def test_what_is_no_run_is_refused(tmp_path: Path):
    assert batchrunner("compare", tmp_path, tmp_path).code == 10


def test_a_report_has_its_groups_too(runs: Path):
    plain = batchrunner("report", runs / "matrix.simulated")
    ended = batchrunner("report", runs / "matrix.simulated", "--by", "model")

    assert ended.code == 0, ended.err
    assert "\nGROUPS\n" in ended.out
    assert "\nSCORES\n" in ended.out
    # With scores a report has them unasked, by variant where there are any.
    assert "\nSCORES\n" in plain.out
    assert fits(ended)


def test_a_report_by_a_column_that_is_not_there_is_refused(runs: Path):
    ended = batchrunner("report", runs / "matrix.simulated", "--by", "varaint")

    assert ended.code == 2
    assert "did you mean 'variant'?" in ended.err


def test_a_report_by_a_column_before_the_first_outcome_is_a_report(tmp_path: Path):
    ended = batchrunner("report", made(tmp_path / "run", [], rows=3), "--by", "model")

    assert ended.code == 0, ended.err
    assert "\nGROUPS\n" not in ended.out


def test_a_run_whose_input_is_gone_says_why_its_columns_are(runs: Path, tmp_path: Path):
    ended = batchrunner("compare", made(tmp_path / "run", [outcome(0), failed(1)], rows=2), "--by", "case_id")

    assert ended.code == 2
    assert "has no such column" in ended.err
    assert "the input of this run cannot be read any more" in ended.err


def test_runs_of_one_name_are_told_apart_by_their_directories(tmp_path: Path):
    for name in ("monday", "tuesday"):
        made(tmp_path / name, [outcome(0, text=name), outcome(1)], rows=2, manifest={"name": "nightly"})

    ended = batchrunner("compare", tmp_path / "monday", tmp_path / "tuesday", "--json")

    assert [run["name"] for run in json.loads(ended.out)["runs"]] == ["monday", "tuesday"]


def test_the_page_is_as_private_as_the_most_private_of_the_results(tmp_path: Path):
    pytest.importorskip("vl_convert")
    for name, mode in (("a", "0644"), ("b", "0600")):
        made(tmp_path / name, [outcome(0)], rows=1, manifest={"name": name, "job": {"output": {"mode": mode}}})

    ended = batchrunner("compare", tmp_path / "a", tmp_path / "b", "--html", tmp_path / "page.html")

    assert (ended.code, ended.last_line) == (0, str(tmp_path / "page.html")), ended.err
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
