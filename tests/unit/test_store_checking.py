"""A check of a run directory: silent about what is sound, precise about every damage."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner.records import Outcome
from batchrunner.store import commits, parts
from batchrunner.store.checking import check_run
from batchrunner.store.opening import open_run
from batchrunner.store.results import build_results, result_schema
from batchrunner.store.run import Epoch, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchrunner.store.commits import Part

ROWS = 30
KEPT = pa.schema([("topic", pa.string())])


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1, "request_key": f"key-{row}", "text": f"answer {row}" * 9} | fields)


def begun(directory: Path) -> Run:
    run = open_run(directory)
    run.begin(Epoch(input={}, asked={}, rows=ROWS) if run.commit.epoch == 0 else None)
    return run


def publish(run: Run) -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "item_id": [f"id-{row}" for row in range(ROWS)],
            "row": list(range(ROWS)),
            "input_file": ["f"] * ROWS,
            "input_line": [row + 1 for row in range(ROWS)],
            "topic": ["t"] * ROWS,
        }
    )
    marks = {"rows": None, "epoch": run.commit.epoch, "sequence": run.commit.folded_through}
    build_results(run.view(), [batch], run.directory / "results.parquet", schema=result_schema(KEPT), metadata=marks)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A finished run of two parts, with a failure that was tried again, and its results."""
    directory = tmp_path / "run"
    with begun(directory) as run:
        for row in range(20):
            run.append(outcome(row, status="exhausted" if row == 3 else "succeeded", cost_usd=0.25))
        run.seal()
        for row in (3, *range(20, ROWS)):
            run.append(outcome(row, cost_usd=0.5))
        run.finish()
        publish(run)
    return directory


def test_a_sound_run_has_no_fault_and_its_counts(directory: Path):
    report = check_run(directory)

    assert (report.faults, report.notes) == ([], [f"{directory / 'run.json'}: not there; the next run writes it anew"])
    assert (report.parts, report.outcomes, report.journaled) == (2, 31, 0)
    assert (report.finished, report.rows, report.results) == (ROWS, ROWS, ROWS)


def test_a_run_that_was_killed_is_sound_and_its_torn_tail_is_noted(directory: Path):
    with begun(directory) as run:
        run.append(outcome(3))
        segment = run.segments.path(max(run.segments.numbers()))
        data = segment.read_bytes()
    segment.write_bytes(data[:-1])

    report = check_run(directory)

    assert report.faults == []
    assert "bytes of a torn tail; the next run cuts them" in report.notes[0]


def part_of(directory: Path) -> Path:
    return min((directory / "parts").glob("0*.parquet"))


def flip_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_an_outcome(directory: Path) -> None:
    """As a part would look that was written wrongly and committed as such."""
    commit = commits.latest(directory / "commits")
    assert commit is not None
    commits.publish(directory / "commits", commit.successor(parts=commit.parts[:1]), 0o640)


def say_wrong_counts(directory: Path) -> None:
    commit = commits.latest(directory / "commits")
    assert commit is not None
    wrong = replace(commit.parts[0], rows=19)
    commits.publish(directory / "commits", commit.successor(parts=(wrong, commit.parts[1])), 0o640)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit in a part": (lambda d: flip_in_the_middle(part_of(d)), r"0\.parquet: "),
    "a part cut short": (lambda d: part_of(d).write_bytes(part_of(d).read_bytes()[:-9]), "0.parquet: "),
    "a missing part": (lambda d: part_of(d).unlink(), "0.parquet: missing"),
    "an empty part": (lambda d: part_of(d).write_bytes(b""), "0.parquet: "),
    "wrong counts": (say_wrong_counts, "20 outcomes, its commit says 19"),
    "a lost part": (lose_an_outcome, "results.parquet|is not the last one there was"),
    "a damaged commit": (lambda d: flip_in_the_middle(min((d / "commits").iterdir())), "json: damaged"),
    "a flipped bit in the results": (lambda d: flip_in_the_middle(d / "results.parquet"), "results.parquet: "),
    "results of another run": (lambda d: (d / "results.parquet").write_bytes(b"PAR1"), "not written by this run"),
    "a manifest that is none": (lambda d: (d / "run.json").write_text("{"), "run.json: not valid JSON"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_damage_is_one_line_with_file_and_cure(directory: Path, what: str):
    harm, said = DAMAGE[what]
    harm(directory)

    faults = check_run(directory).faults

    assert faults, what
    assert re.search(said, faults[0]), faults
    for fault in faults:
        assert "\n" not in fault
        assert re.search("--salvage|remove it", fault), fault


def test_results_that_say_something_else_than_the_outcomes_are_found(directory: Path):
    with begun(directory) as run:
        run.append(outcome(7, text="a later answer"))
        run.finish()
        publish(run)
    results = directory / "results.parquet"
    table = pq.read_table(results)
    texts = table["text"].to_pylist()
    texts[7] = "something else"
    index = table.schema.get_field_index("text")
    pq.write_table(table.set_column(index, "text", pa.array(texts)), results)

    faults = check_run(directory).faults

    assert len(faults) == 1
    assert "row 7: column text is not what its outcome says; remove it" in faults[0]


def test_older_results_are_noted(directory: Path):
    with begun(directory) as run:
        run.append(outcome(3, text="again"))
        run.finish()

    report = check_run(directory)

    assert report.faults == []
    assert any("older than the outcomes" in note for note in report.notes)


def test_a_live_run_that_makes_parts_meanwhile_is_sound(directory: Path, monkeypatch: pytest.MonkeyPatch):
    with begun(directory) as run:
        run.append(outcome(3))
        check = parts.check

        def check_slowly(folder: Path, part: Part) -> None:
            check(folder, part)
            run.append(outcome(4))
            run.seal()

        monkeypatch.setattr(parts, "check", check_slowly)

        assert check_run(directory).faults == []


def test_the_last_digits_of_a_sum_of_costs_are_no_damage(directory: Path):
    results = directory / "results.parquet"
    table = pq.read_table(results)
    index = table.schema.get_field_index("cost_usd")
    costs = [math.nextafter(cost, 1.0) for cost in table["cost_usd"].to_pylist()]
    pq.write_table(table.set_column(index, "cost_usd", pa.array(costs)), results)

    assert check_run(directory).faults == []


def test_results_that_outlived_a_salvage_are_not_to_be_removed(directory: Path):
    part_of(directory).unlink()
    open_run(directory, salvage=True).close()

    report = check_run(directory)

    assert report.faults == []
    assert any("older than the outcomes" in note for note in report.notes)
