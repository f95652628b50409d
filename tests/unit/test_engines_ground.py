"""The place of a run on several nodes: the same one everywhere, of one number of shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchrunner.assemble import Place
from batchrunner.engines.ground import Ground
from batchrunner.errors import JobError, RunError, RunLocked
from batchrunner.spec import Shard, StorageSpec
from batchrunner.store import lock

if TYPE_CHECKING:
    from pathlib import Path


def take(directory: Path, workers: int = 2, *, fresh: bool = False) -> Ground:
    return Ground.take(Place(directory=directory), workers, fresh=fresh, storage=StorageSpec(), environ={})


def test_the_same_directory_is_known_by_its_token_until_it_is_left(tmp_path: Path):
    ground = take(tmp_path / "run")

    ground.check()
    assert ground.shard(Shard(index=1, count=2), {}).directory == tmp_path / "run/shard-1-of-2"
    ground.leave()

    assert list((tmp_path / "run").iterdir()) == []


def test_another_directory_at_the_same_path_is_refused(tmp_path: Path):
    ground = take(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(JobError, match=r"run is not the driver's \(no such file or directory\); give an --out"):
        ground.check()


def test_another_version_is_refused(tmp_path: Path):
    ground = Ground(place=Place(directory=tmp_path), token="t", version="0.0.1")

    with pytest.raises(JobError, match=r"is installed there, and 0\.0\.1 here"):
        ground.check()


def test_another_number_of_shards_is_refused(tmp_path: Path):
    (tmp_path / "run/shard-0-of-3").mkdir(parents=True)

    with pytest.raises(RunError, match=r"has shards of 3: .*give --workers 3"):
        take(tmp_path / "run")
    take(tmp_path / "run", 3)


def test_a_run_without_shards_is_refused(tmp_path: Path):
    (tmp_path / "run/commits").mkdir(parents=True)

    with pytest.raises(RunError, match="a run without shards"):
        take(tmp_path / "run")


def test_fresh_puts_all_shards_aside_unless_one_is_at_work(tmp_path: Path):
    shard = tmp_path / "run/shard-0-of-3"
    shard.mkdir(parents=True)
    held = lock.acquire(shard / "lock")

    with pytest.raises(RunLocked, match="shard-0-of-3 is in use"):
        take(tmp_path / "run", fresh=True)
    held.release()
    take(tmp_path / "run", fresh=True)

    assert (tmp_path / "run.1/shard-0-of-3").is_dir()
