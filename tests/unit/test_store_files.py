"""Files that a crash leaves absent, as they were, or whole."""

from __future__ import annotations

import errno
import os
import resource
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import RunError, StoreError
from batchrunner.store import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let the system refuse to write beyond `size` bytes in any file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def no_links(beside: Path, path: Path) -> None:
    raise OSError(errno.EPERM, "operation not permitted", str(path))


def test_a_whole_file_replaces_the_old_one_and_has_exactly_the_mode_asked_for(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    umask = os.umask(0o077)

    files.write_whole(path, b"new", 0o664)

    os.umask(umask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert names_in(tmp_path) == ["run.json"]


def test_a_refused_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    with files_no_longer_than(10), pytest.raises(OSError, match=r"run\.json"):
        files.write_whole(path, b"x" * 11)

    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["run.json"]


def test_only_the_first_writer_of_a_new_file_succeeds(tmp_path: Path):
    path = tmp_path / "000001.json"
    files.write_new(path, b"first")

    with pytest.raises(FileExistsError):
        files.write_new(path, b"second")

    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["000001.json"]


def test_without_hard_links_a_new_file_is_still_exclusive_and_whole(tmp_path: Path):
    path = tmp_path / "000001.json"

    files.publish(files.put_beside(path, b"first", 0o600), path, link=no_links)
    with pytest.raises(FileExistsError):
        files.publish(files.put_beside(path, b"second", 0o600), path, link=no_links)

    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["000001.json"]


def test_a_system_that_lies_about_linking_is_not_believed(tmp_path: Path):
    path = tmp_path / "000001.json"

    with pytest.raises(FileNotFoundError):
        files.publish(files.put_beside(path, b"data", 0o600), path, link=lambda beside, path: None)

    assert names_in(tmp_path) == []


def test_a_planted_symlink_is_not_written_through(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".run.json.partial").symlink_to(victim)

    files.write_whole(tmp_path / "run.json", b"new")

    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "run.json").is_symlink()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path):
    (tmp_path / ".part.parquet.partial").write_bytes(b"half")
    (tmp_path / ".buckets-1.partial").mkdir()
    (tmp_path / ".buckets-1.partial" / "7").write_bytes(b"half")
    (tmp_path / "part.parquet").write_bytes(b"whole")

    files.discard_partials(tmp_path)

    assert names_in(tmp_path) == ["part.parquet"]


def test_a_refusal_names_the_file_what_the_system_said_and_what_to_do(tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device", "runs/a/journal/000001.log")

    with pytest.raises(StoreError) as refused, files.storing(tmp_path):
        raise full

    assert str(refused.value) == (
        "runs/a/journal/000001.log: no space left on device; make room, then give the same command again"
    )


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EROFS, RunError), (errno.EACCES, RunError), (errno.EIO, StoreError)]
)
def test_at_the_start_a_place_that_is_shut_is_not_a_failing_disk(tmp_path: Path, number: int, kind: type[Exception]):
    with pytest.raises(kind), files.preparing(tmp_path):
        raise OSError(number, os.strerror(number))
