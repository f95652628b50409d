"""Lock and journal on a disk of their own, while the run is elsewhere."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import RunError, RunLocked
from batchrunner.records import Outcome
from batchrunner.store import places
from batchrunner.store.checking import check_run
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.store.run import Run


def opened(directory: Path, state: Path | None = None, *, salvage: bool = False) -> Run:
    run = open_run(directory, state_dir=state, salvage=salvage)
    run.begin(Epoch(input={}, asked={}, rows=9) if run.commit.epoch == 0 else None)
    return run


def outcome(row: int) -> Outcome:
    return Outcome(item_id=f"id-{row}", row=row, input_file="f", input_line=None, status="succeeded", attempts=1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with three outcomes that are in no part, in a journal elsewhere."""
    with opened(tmp_path / "nightly", tmp_path / "state") as run:
        for row in range(3):
            run.append(outcome(row))
    return tmp_path / "nightly"


def test_lock_and_journal_are_in_the_state_directory(tmp_path: Path, run: Path):
    (place,) = (tmp_path / "state").iterdir()

    assert place.name.startswith("nightly-")
    assert (run / "journal").readlink() == place / "journal"
    assert sorted(path.name for path in place.iterdir()) == ["journal", "lock"]
    assert not (run / "lock").exists()
    assert list((place / "journal").glob("*.log"))


@pytest.mark.parametrize("said_again", [True, False])
def test_the_next_start_finds_them_with_or_without_being_told(tmp_path: Path, run: Path, said_again: bool):
    assert check_run(run).journaled == 3

    with opened(run, tmp_path / "state" if said_again else None) as again:
        assert again.recovered.outcomes == 3
        with pytest.raises(RunLocked, match="in use by pid"):
            open_run(run)

    assert view_run(run).ledger.succeeded == 3


def test_a_run_whose_journal_cannot_be_reached_is_refused_or_goes_on_without_it(tmp_path: Path, run: Path):
    (tmp_path / "state").rename(tmp_path / "another machine's")

    with pytest.raises(RunError, match=r"which is not there; .* or run with --salvage"):
        open_run(run)
    assert "which is not there" in check_run(run).faults[0]
    with opened(run, salvage=True) as again:
        assert again.ledger.succeeded == 0
        assert "what is in no part is asked again" in again.recovered.lost[0]
        assert (run / "journal.damaged").readlink().parent.parent == tmp_path / "state"
        again.append(outcome(0))


def test_a_run_stays_where_it_is(tmp_path: Path, run: Path):
    opened(tmp_path / "plain").close()

    with pytest.raises(RunError, match="leave --state-dir out"):
        open_run(tmp_path / "plain", state_dir=tmp_path / "state")
    with pytest.raises(RunError, match="leave --state-dir out"):
        open_run(run, state_dir=tmp_path / "elsewhere")


def test_a_new_run_in_the_old_one_s_place_has_a_place_of_its_own(tmp_path: Path, run: Path):
    run.rename(tmp_path / "nightly.1")

    opened(run, tmp_path / "state").close()

    assert len(list((tmp_path / "state").iterdir())) == 2
    assert check_run(tmp_path / "nightly.1").journaled == 3


def test_what_a_file_system_may_not_keep_is_said(tmp_path: Path):
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounted = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", tmp_path / "merged"], check=False)
    if mounted.returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        doubt = places.doubts(tmp_path / "merged" / "run")
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)

    assert doubt is not None
    assert "container's own layer" in doubt
    assert places.doubts(tmp_path / "run") is None or "overlay" in str(doubt)
