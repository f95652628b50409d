"""The run directory in its owner's hands: opened, written, folded, recovered, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchrunner.errors import RunError, RunLocked, StoreError
from batchrunner.records import Outcome
from batchrunner.store import commits
from batchrunner.store import run as run_module
from batchrunner.store.ledger import EXHAUSTED, SUCCEEDED
from batchrunner.store.manifest import read_manifest, write_manifest
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch, Recovered
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.store.run import Run

TEN = Epoch(input={"fingerprint": "f"}, asked={"model": "m"}, rows=10)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1, "request_key": f"key-{row}"} | fields)


def begun(directory: Path, epoch: Epoch | None = TEN) -> Run:
    run = open_run(directory)
    run.begin(epoch if run.commit.epoch == 0 else None)
    return run


def recorded(directory: Path) -> dict[int, int]:
    """By row: how often the run holds an outcome of it, in all."""
    view = view_run(directory)
    rows = [row for source in view.sources for row in source.read(["row"])["row"].to_pylist()]
    return {row: rows.count(row) for row in rows}


def test_a_new_run_is_made_where_there_is_none(tmp_path: Path):
    directory = tmp_path / "runs" / "nightly"

    with begun(directory) as run:
        assert run.commit.number == 1
        assert (run.commit.input, run.commit.asked, run.commit.rows) == (TEN.input, TEN.asked, 10)
        assert run.recovered == Recovered(outcomes=0, torn_bytes=0)

    assert {path.name for path in directory.iterdir()} == {"commits", "journal", "lock", "parts"}


def test_outcomes_are_numbered_and_known_at_once(tmp_path: Path):
    with begun(tmp_path) as run:
        assert run.append(outcome(3)) == 1
        assert run.append(outcome(4, status="exhausted")) == 2

        assert run.ledger.codes[3:5] == bytes([SUCCEEDED, EXHAUSTED])
        assert view_run(tmp_path).ledger.codes == run.ledger.codes


def test_a_finished_run_holds_everything_in_parts_and_goes_on_later(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.finish()

    with begun(tmp_path) as again:
        assert again.recovered == Recovered()
        assert again.ledger.succeeded == 1
        assert again.append(outcome(1)) == 2
        again.finish()

    assert names_in(tmp_path / "journal") == []
    assert recorded(tmp_path) == {0: 1, 1: 1}


def test_what_a_kill_left_in_the_journal_becomes_a_part_at_the_next_start(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.append(outcome(1))
    journal = tmp_path / "journal" / "000001.log"
    journal.write_bytes(journal.read_bytes() + b"torn")

    with open_run(tmp_path) as again:
        assert again.recovered == Recovered(outcomes=2, torn_bytes=4)
        assert [part.rows for part in again.commit.parts] == [2]

    assert names_in(tmp_path / "journal") == []
    assert recorded(tmp_path) == {0: 1, 1: 1}


def test_sealing_makes_a_part_while_the_journal_goes_on(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.rotate()
        run.append(outcome(1))
        run.fold()

        assert [part.last_sequence for part in run.commit.parts] == [1]
        assert recorded(tmp_path) == {0: 1, 1: 1}


def test_segments_of_a_crash_between_commit_and_removal_are_not_counted_twice(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.rotate()
        path = tmp_path / "journal" / "000001.log"
        kept = path.read_bytes()
        run.fold()
        run.append(outcome(1))
    path.write_bytes(kept)

    with open_run(tmp_path) as again:
        assert again.recovered.outcomes == 1

    assert recorded(tmp_path) == {0: 1, 1: 1}


def test_leftovers_that_no_commit_names_are_removed(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
    leftovers = ["000000000001-000000000001.parquet", "carried-000009.parquet", ".x.parquet.partial"]
    for name in leftovers:
        (tmp_path / "parts" / name).write_bytes(b"half")
    (tmp_path / "parts" / "notes.txt").write_bytes(b"somebody's own")

    open_run(tmp_path).close()

    assert recorded(tmp_path) == {0: 1}
    assert names_in(tmp_path / "parts") == ["000000000001-000000000001.parquet", "notes.txt"]


def test_a_lost_commit_is_refused_rather_than_its_part_thrown_away(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.finish()
    (tmp_path / "commits" / "000002.json").write_bytes(b"")

    with pytest.raises(RunError, match="no commit names this part"):
        open_run(tmp_path)

    assert len(names_in(tmp_path / "parts")) == 1


def test_outcomes_without_any_commit_are_refused(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
    (tmp_path / "commits" / "000001.json").unlink()

    with pytest.raises(RunError, match=r"no commit, but 000001\.log is there"):
        open_run(tmp_path)


def test_another_process_that_commits_stops_this_one(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        commits.publish(tmp_path / "commits", run.commit.successor(), 0o640)

        with pytest.raises(RunError, match="written by another process"):
            run.seal()

    assert recorded(tmp_path) == {0: 1}


def test_a_second_owner_is_refused(tmp_path: Path):
    with open_run(tmp_path), pytest.raises(RunLocked):
        open_run(tmp_path)

    open_run(tmp_path).close()


def test_a_directory_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_bytes(b"years of work")

    with pytest.raises(RunError, match=r"not a run directory and not empty \(it holds thesis\.tex\)"):
        open_run(tmp_path)

    assert names_in(tmp_path) == ["thesis.tex"]


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    path.write_bytes(b"")

    with pytest.raises(RunError, match="is not a directory"):
        open_run(path)
    with pytest.raises(RunError, match="not a directory"):
        open_run(path / "below")


def test_no_run_is_made_where_one_is_expected(tmp_path: Path):
    with pytest.raises(RunError, match="no run here"):
        open_run(tmp_path / "missing", create=False)
    with pytest.raises(RunError, match="no run here"):
        view_run(tmp_path / "missing")

    assert names_in(tmp_path) == []


def test_a_run_of_a_newer_version_is_refused_before_anything_is_touched(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
    (tmp_path / "commits" / "000002.json").write_bytes(b'{"format":2}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with pytest.raises(RunError, match="newer version"):
        open_run(tmp_path)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nothing_can_be_written_before_an_epoch_has_begun(tmp_path: Path):
    with open_run(tmp_path) as run, pytest.raises(RuntimeError, match="begin"):
        run.append(outcome(0))


def test_a_failing_disk_is_a_store_error_and_what_was_written_stays(tmp_path: Path):
    directory = tmp_path / "run"
    run = begun(directory)
    run.append(outcome(0))
    (directory / "parts").rename(tmp_path / "gone")

    with pytest.raises(StoreError, match="see to the disk, then give the same command again"):
        run.seal()

    (tmp_path / "gone").rename(directory / "parts")
    run.append(outcome(1))
    run.finish()
    run.close()
    assert recorded(directory) == {0: 1, 1: 1}


def test_a_part_whose_commit_failed_is_named_by_the_next_try(tmp_path: Path):
    directory = tmp_path / "run"
    run = begun(directory)
    run.append(outcome(0))
    (directory / "commits").rename(tmp_path / "gone")
    with pytest.raises(StoreError):
        run.seal()

    (tmp_path / "gone").rename(directory / "commits")
    run.finish()
    run.close()

    assert recorded(directory) == {0: 1}
    assert len(names_in(directory / "parts")) == 1


def test_a_journal_that_has_failed_is_kept_for_the_next_start(tmp_path: Path):
    directory = tmp_path / "run"
    run = begun(directory)
    run.append(outcome(0))
    (directory / "journal").rename(tmp_path / "gone")
    with pytest.raises(StoreError):
        run.rotate()
    (tmp_path / "gone").rename(directory / "journal")

    with pytest.raises(StoreError):
        run.finish()
    run.close()
    with pytest.raises(StoreError):
        run.finish()

    with open_run(directory) as again:
        assert again.recovered.outcomes == 1
    assert recorded(directory) == {0: 1}


def test_many_small_segments_become_one_part_and_large_ones_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "SEAL_BYTES", 1000)
    with begun(tmp_path) as run:
        for row in range(8):
            run.append(outcome(row, text="x" * (600 if row > 5 else 10)))
            run.rotate()
        run.fold()

        assert [part.rows for part in run.commit.parts] == [4, 2, 1, 1]
    assert recorded(tmp_path) == dict.fromkeys(range(8), 1)


def test_the_manifest_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "run.json"
    write_manifest(path, {"state": "running"}, 0o640)
    write_manifest(path, {"state": "finished"}, 0o644)

    assert read_manifest(path) == {"state": "finished"}
    assert path.stat().st_mode & 0o777 == 0o644
    assert read_manifest(tmp_path / "missing") is None


@pytest.mark.parametrize("data", [b"", b"[1]", b"{"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "run.json"
    path.write_bytes(data)

    with pytest.raises(RunError, match=r"run\.json: .*remove it"):
        read_manifest(path)
