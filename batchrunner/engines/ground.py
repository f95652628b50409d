"""Where the shards of a run are that are worked on elsewhere: all of one count, and the same place for every worker."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrunner import __version__
from batchrunner.assemble import Place, place_of
from batchrunner.assemble.invoke import put_directory_aside
from batchrunner.assemble.places import names_at
from batchrunner.errors import JobError, RunError, RunLocked
from batchrunner.objects import below
from batchrunner.store import lock_is_held, lock_path
from batchrunner.store.files import make_directory, preparing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchrunner.spec import Shard, StorageSpec

SHARD = re.compile(r"shard-\d+-of-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The place of the whole run. A directory has a token in it, by which others see that theirs is the same."""

    place: Place
    token: str
    version: str = __version__

    @classmethod
    def take(
        cls, place: Place, workers: int, *, fresh: bool, storage: StorageSpec, environ: Mapping[str, str]
    ) -> Ground:
        """The place for so many shards. Raises RunError where it holds other ones."""
        ground = cls(place=place, token=secrets.token_hex(8))
        if place.address is not None:
            if fresh:
                raise JobError(
                    "--fresh: expected without --engine ray for a run on an object store; give another --out"
                )
            _check_count(str(place), names_at(place.address, storage, environ), workers)
            return ground
        directory = place.directory.absolute()
        if fresh and directory.exists():
            _begin_anew(directory)
        with preparing(directory):
            make_directory(directory)
            _check_count(str(place), {path.name for path in directory.iterdir()}, workers)
            ground = replace(ground, place=Place(directory=directory))
            ground._mark.write_text(ground.token)
        return ground

    def shard(self, shard: Shard, environ: Mapping[str, str]) -> Place:
        """A shard's place, for this process."""
        if self.place.address is None:
            return Place(directory=self.place.directory / shard.folder)
        return place_of(below(self.place.address, shard.folder), environ)

    @property
    def _mark(self) -> Path:
        return self.place.directory / f".engine-{self.token}"

    def check(self) -> None:
        """Raise JobError unless this process has the same directory, and the same version of us."""
        if self.version != __version__:
            raise JobError(f"batchrunner {__version__} is installed there, and {self.version} here; install the same")
        if self.place.address is not None:
            return
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
            f"{self.place} is not the driver's ({why.lower()}); give an --out on a file system that all nodes share "
            "and may write to, or on an object store"
        )

    def leave(self) -> None:
        if self.place.address is None:
            with suppress(OSError):
                self._mark.unlink()


def _check_count(place: str, names: set[str], workers: int) -> None:
    if "commits" in names:
        raise RunError(f"{place} is a run without shards; go on without --engine ray, or give another --out")
    counts = {int(found[1]) for name in names if (found := SHARD.fullmatch(name))}
    if counts - {workers}:
        held = " and ".join(map(str, sorted(counts)))
        raise RunError(
            f"{place} has shards of {held}: with another number settled items would be asked again; give "
            f"--workers {min(counts)}, or another --out"
        )


def _begin_anew(directory: Path) -> None:
    """`--fresh`: put the old run aside, with all its shards."""
    for folder in directory.glob("shard-*"):
        if lock_is_held(lock_path(folder)):
            raise RunLocked(f"{folder} is in use; wait for it, or give another --out")
    put_directory_aside(directory)
