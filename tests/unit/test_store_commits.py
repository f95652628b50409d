"""The highest valid commit rules, and its number is taken once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import RunError
from batchrunner.store import commits
from batchrunner.store.commits import Commit, Part

if TYPE_CHECKING:
    from pathlib import Path

PART = Part(name="a.parquet", rows=2, first_sequence=1, last_sequence=2, epoch=1, size_bytes=10)
FIRST = Commit(run_id="ab" * 16, number=1, epoch=1, input={"path": "ünïcode"}, asked={"model": "m"}, rows=9)


def publish(directory: Path, count: int) -> Commit:
    commit = FIRST
    for _ in range(count):
        commits.publish(directory, commit, 0o640)
        commit = commit.successor(parts=(*commit.parts, PART), folded_through=commit.folded_through + 2)
    return commit


def test_a_commit_is_read_as_it_was_written(tmp_path: Path):
    second = FIRST.successor(parts=(PART,), carried="carried-000002.parquet", folded_through=2, folded_segment=7)

    commits.publish(tmp_path, FIRST, 0o640)
    commits.publish(tmp_path, second, 0o640)

    assert commits.latest(tmp_path) == second
    assert (tmp_path / "000002.json").stat().st_mode & 0o777 == 0o640


def test_there_is_no_commit_in_an_empty_or_missing_directory(tmp_path: Path):
    assert commits.latest(tmp_path) is None
    assert commits.latest(tmp_path / "missing") is None


def test_a_number_that_is_taken_means_another_writer(tmp_path: Path):
    commits.publish(tmp_path, FIRST, 0o640)

    with pytest.raises(RunError, match="written by another process"):
        commits.publish(tmp_path, FIRST, 0o640)


def test_only_the_last_commits_stay(tmp_path: Path):
    publish(tmp_path, 12)

    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:06d}.json" for number in range(5, 13)]


def test_a_damaged_commit_gives_way_to_the_one_before_and_keeps_its_number(tmp_path: Path):
    publish(tmp_path, 2)
    (tmp_path / "000002.json").write_bytes(b"")

    found = commits.latest(tmp_path)

    assert found == FIRST
    assert found.successor().number == 3


def test_no_flipped_bit_and_no_cut_gives_a_wrong_commit(tmp_path: Path):
    publish(tmp_path, 2)
    path = tmp_path / "000002.json"
    whole = path.read_bytes()
    harmed = [whole[:length] for length in range(len(whole))]
    harmed += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in (0, 5)
    ]

    for data in harmed:
        path.write_bytes(data)
        try:
            assert commits.latest(tmp_path) == FIRST
        except RunError:
            # The digit of the format was flipped: it might be a newer version's.
            assert data[:12] != whole[:12]


def test_only_damaged_commits_are_refused(tmp_path: Path):
    (tmp_path / "000001.json").write_bytes(b"{}")

    with pytest.raises(RunError, match="none of 1 commits is valid"):
        commits.latest(tmp_path)


def test_a_commit_of_a_newer_version_is_refused(tmp_path: Path):
    commits.publish(tmp_path, FIRST, 0o640)
    (tmp_path / "000002.json").write_bytes(b'{"format":2,"digest":"?"}')

    with pytest.raises(RunError, match="written by a newer version of batchrunner"):
        commits.latest(tmp_path)
