"""A damaged run goes on: what can be read is kept, the rest set aside and told."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.errors import RunError
from batchrunner.records import Outcome
from batchrunner.store import commits
from batchrunner.store.checking import check_run
from batchrunner.store.matching import Keys, match, outcome_index
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch, Run
from batchrunner.store.salvaging import salvage
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 40
IN_MEMORY = next((place for place in ("/dev/shm",) if Path(place).is_dir()), None)


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1, "request_key": f"key-{row}"} | fields)


def begun(directory: Path, *, epoch: bool = False, salvage: bool = False) -> Run:
    run = open_run(directory, salvage=salvage)
    new = Epoch(input={"fingerprint": "f", "rows_path": "p"}, asked={"model": "m"}, rows=ROWS)
    run.begin(new if epoch or run.commit.epoch == 0 else None)
    return run


def recorded(directory: Path) -> list[str]:
    view = view_run(directory)
    return sorted(item for source in view.sources for item in source.read(["item_id"])["item_id"].to_pylist())


def ids(*ranges: range) -> list[str]:
    return sorted(f"id-{row}" for rows in ranges for row in rows)


def make(directory: Path) -> None:
    """Twenty outcomes in two parts, ten in a segment that was closed, ten in the last: as a kill leaves it."""
    with begun(directory) as run:
        for first in (0, 10):
            for row in range(first, first + 10):
                run.append(outcome(row))
            run.seal()
        for row in range(20, 30):
            run.append(outcome(row))
        run.rotate()
        for row in range(30, 40):
            run.append(outcome(row))


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "journal").glob("*.log"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make(tmp_path / "run")
    return tmp_path / "run"


def test_a_sound_run_is_left_as_it_is(directory: Path):
    with begun(directory, salvage=True) as run:
        assert run.recovered.lost == ()
        assert run.recovered.outcomes == 20
        assert run.commit.input["fingerprint"] == "f"


@pytest.mark.parametrize("at", ["header", "record"])
def test_one_damaged_record_of_a_journal_costs_one_outcome(directory: Path, at: str):
    flip(segments(directory)[0], 20 if at == "header" else 100)
    with pytest.raises(RunError, match="run again with --salvage: what cannot be read is asked again"):
        open_run(directory)

    with open_run(directory, salvage=True) as run:
        lost = run.recovered.lost

    assert recorded(directory) == (ids(range(40)) if at == "header" else ids(range(20), range(21, 40)))
    assert len(lost) == 1
    assert "outcomes of the journal were kept" in lost[0]
    assert len(list((directory / "journal").glob("*.damaged"))) == 2
    with begun(directory, epoch=True):
        assert check_run(directory).faults == []


def test_a_part_that_cannot_be_read_is_set_aside_and_its_rows_are_open(directory: Path):
    part = min((directory / "parts").glob("*.parquet"))
    flip(part, 200)

    with open_run(directory, salvage=True) as run:
        (lost,) = run.recovered.lost

    assert recorded(directory) == ids(range(10, 40))
    assert lost.endswith(f"set aside as {part.name}.damaged, its 10 outcomes are lost")
    assert part.with_name(f"{part.name}.damaged").exists()


def test_the_run_forgets_its_input_so_that_every_row_is_matched_anew(directory: Path):
    min((directory / "parts").glob("*.parquet")).unlink()

    with open_run(directory, salvage=True) as run:
        assert run.commit.input == {"fingerprint": None, "rows_path": "p"}


def test_a_part_whose_commit_is_lost_is_taken_in(directory: Path):
    open_run(directory).close()  # The journal becomes parts.
    newest = max((directory / "commits").iterdir())
    flip(newest, 200)
    with pytest.raises(RunError, match="no commit names this part"):
        open_run(directory)

    with open_run(directory, salvage=True) as run:
        lost = run.recovered.lost

    assert recorded(directory) == ids(range(40))
    assert any("taken in, although its commit is lost" in sentence for sentence in lost)
    assert any(sentence.endswith(f"set aside as {newest.name}.damaged") for sentence in lost)


def test_a_manifest_that_is_none_is_set_aside(directory: Path):
    (directory / "run.json").write_text("{")

    with open_run(directory, salvage=True) as run:
        (lost,) = run.recovered.lost

    assert lost.endswith("set aside as run.json.damaged, it is written anew")


def test_a_second_salvage_has_nothing_to_do(directory: Path):
    flip(segments(directory)[0], 100)
    open_run(directory, salvage=True).close()

    with open_run(directory, salvage=True) as run:
        assert run.recovered.lost == ()
    assert len(recorded(directory)) == 39


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_was_harmed_what_can_be_read_is_kept_and_nothing_is_made_up(data: st.DataObject):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        directory = Path(name) / "run"
        make(directory)
        paths = [*sorted((directory / "parts").glob("*.parquet")), *segments(directory)]
        harmed = data.draw(st.lists(st.sampled_from(range(len(paths))), min_size=1, max_size=3, unique=True))
        for number in harmed:
            flip(paths[number], data.draw(st.integers(0, paths[number].stat().st_size - 1)))

        with open_run(directory, salvage=True):
            found = recorded(directory)

    assert len(set(found)) == len(found)
    assert set(found) <= set(ids(range(ROWS)))
    untouched = [number for number in range(4) if number not in harmed]
    for number in untouched:
        assert set(ids(range(number * 10, number * 10 + 10))) <= set(found)
    for number in set(harmed) & {2, 3}:
        kept = set(ids(range(number * 10, number * 10 + 10))) & set(found)
        assert len(kept) >= 9


def test_what_was_settled_still_counts_as_such_when_the_job_asks_something_else(directory: Path):
    """Otherwise all of it would be bought again without a word."""
    open_run(directory).close()
    with begun(directory, epoch=True) as run:
        run.append(outcome(3))
        run.append(outcome(3))
    newest = max((directory / "commits").iterdir())
    flip(newest, 200)
    keys = Keys()
    for row in range(ROWS):
        keys.add(row, f"id-{row}", "another key")

    with open_run(directory, salvage=True) as run:
        assert run.commit.rows == 0
        matches = match(keys.table(), outcome_index(run.view()))

    assert matches.changed_items == ROWS


def test_rows_of_an_input_that_nobody_knows_any_more_are_taken_for_no_others(directory: Path):
    """The commit of a longer input is lost, and the header that said of which input the journal is."""
    open_run(directory).close()
    with open_run(directory) as run:
        run.begin(Epoch(input={"fingerprint": "g", "rows_path": "p"}, asked={"model": "m"}, rows=2 * ROWS))
        run.append(outcome(2 * ROWS - 1))
    flip(max((directory / "commits").iterdir()), 200)
    flip(segments(directory)[-1], 20)

    open_run(directory, salvage=True).close()

    assert recorded(directory) == sorted([*ids(range(ROWS)), f"id-{2 * ROWS - 1}"])
    assert check_run(directory).faults == []


def test_a_part_whose_commit_is_lost_and_that_is_damaged_keeps_no_run_from_going_on(directory: Path):
    open_run(directory).close()
    flip(max((directory / "commits").iterdir()), 200)
    part = max((directory / "parts").glob("0*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])

    with open_run(directory, salvage=True) as run:
        lost = run.recovered.lost

    assert recorded(directory) == ids(range(20))
    assert lost[0].endswith(f"set aside as {part.name}.damaged, its outcomes are lost")


def test_a_part_that_only_cannot_be_opened_now_is_not_given_up(directory: Path):
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    part = min((directory / "parts").glob("0*.parquet"))
    commit = commits.latest(directory / "commits")
    assert commit is not None
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, kept[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(directory, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            salvage(directory, commit, 0o640)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
        for file in taken:
            os.close(file)

    assert part.exists()


STEPS = ("os.link", "os.rename", "os.remove")


def killed_at(directory: Path, step: int) -> bool:
    """Salvage in a child that dies at its `step`th link, rename or removal. Whether it lived that long."""
    child = os.fork()
    if child == 0:
        left = [step]

        def die(event: str, args: object) -> None:
            left[0] -= event in STEPS
            if not left[0]:
                os._exit(9)

        sys.addaudithook(die)
        open_run(directory, salvage=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def harm_journal_and_part(directory: Path) -> None:
    flip(segments(directory)[0], 100)
    flip(min((directory / "parts").glob("0*.parquet")), 200)


def lose_commit_and_journal_header(directory: Path) -> None:
    with begun(directory, epoch=True) as run:
        run.append(outcome(5))
    flip(max((directory / "commits").iterdir()), 200)
    flip(segments(directory)[-1], 20)


@pytest.mark.parametrize("harm", [harm_journal_and_part, lose_commit_and_journal_header])
def test_killed_at_any_step_the_next_salvage_ends_the_same(harm: Callable[[Path], None]):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        make(Path(name) / "run")
        harm(Path(name) / "run")
        shutil.copytree(Path(name) / "run", Path(name) / "undisturbed")
        open_run(Path(name) / "undisturbed", salvage=True).close()
        expected, steps = recorded(Path(name) / "undisturbed"), 0

        while killed_at(shutil.copytree(Path(name) / "run", Path(name) / str(steps)), steps + 1):
            open_run(Path(name) / str(steps), salvage=True).close()
            assert recorded(Path(name) / str(steps)) == expected
            assert check_run(Path(name) / str(steps)).faults == []
            steps += 1

    assert steps >= 8
