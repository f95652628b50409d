"""A cleaned run says the same as before: what counts, what it cost, what may go on."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.errors import RunError
from batchrunner.records import Outcome
from batchrunner.store import begun, clean, totals
from batchrunner.store.checking import check_run
from batchrunner.store.matching import Keys, match, outcome_index
from batchrunner.store.opening import open_run
from batchrunner.store.results import build_results, result_batches, result_schema
from batchrunner.store.run import Epoch
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ROWS = 6
IN_MEMORY = next((place for place in ("/dev/shm",) if Path(place).is_dir()), None)
KEPT = pa.schema([])


def outcome(item: int, row: int, status: str, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{item}", "row": row, "input_file": "f", "input_line": None, "status": status}
    turns = json.dumps([{"text": f"turn {item}"}]) if status == "unfinished" else None
    facts = {"attempts": 1, "request_key": f"key-{item}", "turns": turns, "response": "{}", "started_at": 1_000 + item}
    return Outcome(**known | facts | fields)


def rows_of(ids: Collection[str]) -> Mapping[str, int]:
    return {item_id: ROWS - 1 - int(item_id[3:]) for item_id in ids if int(item_id[3:]) < ROWS}


def input_of() -> pa.RecordBatch:
    """The second input: the items in the opposite order."""
    rows = range(ROWS)
    return pa.RecordBatch.from_pydict(
        {
            "row": pa.array(rows, pa.int64()),
            "item_id": [f"id-{ROWS - 1 - row}" for row in rows],
            "input_file": ["f"] * ROWS,
            "input_line": pa.nulls(ROWS, pa.int64()),
        }
    )


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        yield Path(name)


def timed(life: list[Outcome]) -> list[Outcome]:
    """Begun anew behind each end, as conversations are."""
    begun_at, found = dict.fromkeys((one.item_id for one in life), 1_000), []
    for one in life:
        found.append(replace(one, started_at=begun_at[one.item_id]))
        begun_at[one.item_id] += one.status in ("succeeded", "rejected")
    return found


def write(directory: Path, first: list[Outcome], second: list[Outcome]) -> None:
    """A life with twice as many items, then one with an input of half of them, in the opposite order."""
    with open_run(directory) as run:
        run.begin(Epoch(input={"a": 1}, asked={}, rows=2 * ROWS))
        for number, one in enumerate(first, 1):
            run.append(one)
            if number % 4 == 0:
                run.seal()
        run.finish()
    with open_run(directory) as run:
        keys = Keys()
        for row in range(ROWS):
            keys.add(row, f"id-{ROWS - 1 - row}", f"key-{ROWS - 1 - row}")
        carried = match(keys.table(), outcome_index(run.view())).carried
        run.begin(Epoch(input={"a": 2}, asked={}, rows=ROWS), carried=carried)
        for one in second:
            run.append(one)
        run.finish()


def said(directory: Path) -> dict[str, Any]:
    """What a run is worth: its results, what it has cost, what may go on."""
    view = view_run(directory)
    schema = result_schema(KEPT, has_turns=True)
    table = pa.Table.from_batches(result_batches(view, [input_of()], schema=schema), schema)
    spent = replace(totals(view), outcomes=0, cost_unknown=0, cost_usd=totals(view).cost_usd or 0.0)
    going = {item: one for item, one in begun(view).items() if int(item[3:]) < ROWS}
    unknown = totals(view).cost_unknown > 0
    return {"table": table.to_pylist(), "spent": spent, "unknown": unknown, "begun": going}


STATUS = st.sampled_from(["succeeded", "rejected", "exhausted", "unfinished"])
COST = st.sampled_from([None, 0.5, 2.0])
FACTS = st.fixed_dictionaries(
    {"cost_usd": COST, "prompt_tokens": st.sampled_from([None, 3]), "possibly_billed": st.integers(0, 2)}
)


def lives(items: int, row_of: Any) -> st.SearchStrategy[list[Outcome]]:
    one = st.tuples(st.integers(0, items - 1), STATUS, FACTS)
    return st.lists(one.map(lambda it: outcome(it[0], row_of(it[0]), it[1], **it[2])), max_size=14)


def check_cleaned(first: list[Outcome], second: list[Outcome]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        directory = Path(name) / "run"
        both = timed([*first, *second])
        write(directory, both[: len(first)], both[len(first) :])
        before = said(directory)

        with open_run(directory) as run:
            clean(run, rows_of)
        after, report = said(directory), check_run(directory)
        with open_run(directory) as run:
            again = clean(run, rows_of)

    assert after == before
    assert report.faults == []
    assert again.outcomes == 0


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=lives(2 * ROWS, lambda item: item), second=lives(ROWS, lambda item: ROWS - 1 - item))
def test_a_cleaned_run_says_the_same(first: list[Outcome], second: list[Outcome]):
    check_cleaned(first, second)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=lives(2 * ROWS, lambda item: item), second=lives(ROWS, lambda item: ROWS - 1 - item))
def test_many_cleaned_runs_say_the_same(first: list[Outcome], second: list[Outcome]):
    check_cleaned(first, second)


def small(directory: Path) -> None:
    first = [outcome(item, item, "exhausted" if item == 2 else "succeeded", cost_usd=1.0) for item in range(2 * ROWS)]
    write(directory, first, [outcome(2, ROWS - 3, "succeeded", cost_usd=1.0)])
    with open_run(directory) as run:
        marks = {"rows": None, "epoch": run.commit.epoch, "sequence": run.commit.folded_through}
        build_results(
            run.view(), [input_of()], directory / "results.parquet", schema=result_schema(KEPT), metadata=marks
        )


def test_what_no_longer_counts_is_gone(tmp_path: Path):
    small(tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        cleaned = clean(run, rows_of)

    view = view_run(tmp_path / "run")
    assert cleaned.outcomes == ROWS + 1
    assert sorted(view.sources[0].read(["item_id"])["item_id"].to_pylist()) == [f"id-{item}" for item in range(ROWS)]
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 1
    assert len(list((tmp_path / "run" / "commits").iterdir())) == 2
    assert totals(view).cost_usd == 2 * ROWS + 1
    assert cleaned.bytes_after < cleaned.bytes_before


def lose_newest_commit(directory: Path) -> None:
    max((directory / "commits").glob("*.json")).write_bytes(b"")


def test_a_damaged_commit_takes_nothing_from_a_cleaned_run(tmp_path: Path):
    small(tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        clean(run, rows_of)
    before = said(tmp_path / "run")

    lose_newest_commit(tmp_path / "run")

    open_run(tmp_path / "run").close()
    assert said(tmp_path / "run") == before


def test_raw_replies_go_from_parts_and_results_and_nothing_else(tmp_path: Path):
    small(tmp_path / "run")
    results = tmp_path / "run" / "results.parquet"
    before = pq.read_table(results)

    with open_run(tmp_path / "run") as run:
        clean(run, rows_of, drop_responses=True)

    after = pq.read_table(results)
    assert after["response"].null_count == after.num_rows == ROWS
    assert after.drop_columns(["response"]).equals(before.drop_columns(["response"]))
    assert after.schema.metadata == before.schema.metadata
    assert view_run(tmp_path / "run").sources[0].read(["response"])["response"].null_count == ROWS
    assert check_run(tmp_path / "run").faults == []


def killed_at(directory: Path, step: int) -> bool:
    """Clean in a child that dies at its `step`th link, rename or removal. Whether it lived that long."""
    child = os.fork()
    if child == 0:
        left = [step]

        def die(event: str, args: object) -> None:
            if event in ("os.link", "os.rename", "os.remove"):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)

        with open_run(directory) as run:
            sys.addaudithook(die)
            clean(run, rows_of, drop_responses=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.slow
def test_killed_at_any_step_it_is_as_it_was_or_clean(in_memory: Path):
    steps = stopped = 0
    small(in_memory / "0")
    for step in range(1, 60):
        directory = in_memory / str(step)
        shutil.copytree(in_memory / "0", directory)
        before = said(directory)
        for row in before["table"]:
            row["response"] = None
        if not killed_at(directory, step):
            break
        steps += 1
        report = check_run(directory)
        assert report.faults == []
        stopped += any("--drop-responses was stopped, repeat it" in note for note in report.notes)
        with open_run(directory) as run:
            clean(run, rows_of, drop_responses=True)
        assert said(directory) == before
        report = check_run(directory)
        assert report.faults == []

    assert steps >= 8
    assert stopped >= 1


def test_once_an_old_part_is_gone_the_newest_commit_may_be_damaged_too(in_memory: Path):
    small(in_memory / "0")
    before = said(in_memory / "0")
    parts = len(list((in_memory / "0" / "parts").glob("0*")))
    for step in range(1, 60):
        directory = shutil.copytree(in_memory / "0", in_memory / str(step))
        assert killed_at(directory, step)
        if len(list((directory / "parts").glob("0*"))) < parts:
            break

    lose_newest_commit(directory)

    open_run(directory).close()
    assert said(directory)["spent"] == before["spent"]
    assert said(directory)["begun"] == before["begun"]


@pytest.mark.parametrize("known", [True, False])
def test_a_conversation_that_may_go_on_is_kept_while_its_row_is(tmp_path: Path, known: bool):
    write(tmp_path / "run", [outcome(1, 1, "unfinished"), outcome(1, 1, "unfinished"), outcome(0, 0, "succeeded")], [])

    with open_run(tmp_path / "run") as run:
        cleaned = clean(run, rows_of if known else lambda ids: {})

    assert cleaned.outcomes == (0 if known else 2)
    assert list(begun(view_run(tmp_path / "run"))) == (["id-1"] if known else [])


def test_a_salvaged_run_is_not_cleaned_before_its_rows_were_matched_anew(tmp_path: Path):
    small(tmp_path / "run")
    next((tmp_path / "run" / "parts").glob("carried-*")).write_bytes(b"")
    before = outcomes_recorded(tmp_path / "run", salvage=True)

    with open_run(tmp_path / "run") as run, pytest.raises(RunError, match="give the run's command once, then clean"):
        clean(run, rows_of)

    assert outcomes_recorded(tmp_path / "run") == before > 0


def outcomes_recorded(directory: Path, *, salvage: bool = False) -> int:
    with open_run(directory, salvage=salvage) as run:
        return run.view().outcomes_recorded
