"""The directory of a run whose shards are worked on elsewhere: of one count, and the same one everywhere."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner import __version__
from batchrunner.assemble.invoke import put_aside
from batchrunner.errors import JobError, RunError, RunLocked
from batchrunner.store import lock_is_held, lock_path, shard_folders
from batchrunner.store.files import make_directory, preparing

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory with a token in it, by which others see that theirs is the same."""

    directory: Path
    token: str
    version: str = __version__

    @classmethod
    def take(cls, directory: Path, workers: int, *, fresh: bool = False) -> Place:
        """The directory for so many shards. Raises RunError where it holds other ones."""
        if fresh and directory.exists():
            _begin_anew(directory)
        _check_count(directory, workers)
        with preparing(directory):
            make_directory(directory)
            place = cls(directory=directory, token=secrets.token_hex(8))
            place._mark.write_text(place.token)
        return place

    @property
    def _mark(self) -> Path:
        return self.directory / f".engine-{self.token}"

    def check(self) -> None:
        """Raise JobError unless this process has the same directory, and the same version of us."""
        if self.version != __version__:
            raise JobError(f"batchrunner {__version__} is installed there, and {self.version} here; install the same")
        try:
            same = self._mark.read_text() == self.token
            beside = self._mark.with_suffix(f".{secrets.token_hex(4)}")
            beside.touch(exist_ok=False)
            beside.unlink()
        except OSError as error:
            raise JobError(self._fault(error.strerror or str(error))) from error
        if not same:
            raise JobError(self._fault("something else is there"))

    def _fault(self, why: str) -> str:
        return (
            f"{self.directory} is not the driver's ({why.lower()}); give an --out on a file system that all nodes "
            "share and may write to"
        )

    def leave(self) -> None:
        with suppress(OSError):
            self._mark.unlink()


def _check_count(directory: Path, workers: int) -> None:
    if (directory / "commits").is_dir():
        raise RunError(f"{directory} is a run without shards; go on without --engine ray, or give another --out")
    folders = shard_folders(directory)
    counts = {int(folder.name.rpartition("-")[2]) for folder in folders}
    if counts - {workers}:
        (count,) = counts
        raise RunError(
            f"{directory} has shards of {count}: another number would ask settled items again; give --workers {count}, "
            "another --out, or --fresh"
        )


def _begin_anew(directory: Path) -> None:
    """`--fresh`: put the old run aside, with all its shards."""
    for folder in directory.glob("shard-*"):
        if lock_is_held(lock_path(folder)):
            raise RunLocked(f"{folder} is in use; wait for it, or give another --out")
    put_aside(directory)
