"""Where runs and inputs are that are no directory: addresses on object stores, and this machine's part of them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.errors import RunError
from batchrunner.objects import RETRY_S, Copies, ObjectsError, Stores, run_directory, state_root
from batchrunner.store import Mirror, RunClaim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.spec import StorageSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run is: its directory; on an object store its address too, and then the directory is this machine's."""

    directory: Path
    address: str | None = None

    def __str__(self) -> str:
        return self.address or str(self.directory)


def place_of(found: Path | str, environ: Mapping[str, str], state_dir: Path | None = None) -> Place:
    """The place of a run by what `spec.run_dir` says."""
    if isinstance(found, Path):
        return Place(directory=found)
    return Place(directory=run_directory(state_root(environ, state_dir), found), address=found)


def copies_of(storage: StorageSpec, environ: Mapping[str, str], state_dir: Path | None = None) -> Copies:
    """Copies of input on object stores, kept beside the runs that this machine has on them."""
    return Copies(state_root(environ, state_dir) / "inputs", Stores(storage, environ).folder)


def mirror_of(
    place: Place, storage: StorageSpec, environ: Mapping[str, str], *, wait_s: float = RETRY_S
) -> Mirror | None:
    """The counterpart of a run on an object store; None for one that is a directory. Raises JobError.

    A store that does not answer is waited for, `wait_s` long.
    """
    if place.address is None:
        return None
    return Mirror(Stores(storage, environ, retry_s=wait_s).folder(place.address), place.directory)


def put_aside(mirror: Mirror, storage: StorageSpec, environ: Mapping[str, str]) -> None:
    """`--fresh`: rename the run to ADDRESS.1, or the next number that is free. Raises RunError, StoreError."""
    stores, number = Stores(storage, environ), 1
    try:
        while (aside := stores.folder(f"{mirror.address}.{number}")).entries():
            number += 1
    except ObjectsError as error:
        raise RunError(str(error)) from error
    mirror.put_aside(aside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A run on an object store, to be read: the files of a moment, and whether somebody was at work on it."""

    directory: Path
    alive: bool


def bring(place: Place, storage: StorageSpec, environ: Mapping[str, str]) -> Brought:
    """What there is of a run on an object store; this machine's own part, where that goes on from it.

    Raises RunError where there is none, StoreError where the store cannot be reached.
    """
    mirror = mirror_of(place, storage, environ)
    assert mirror is not None
    alive = RunClaim(mirror.folder).alive()
    if mirror.is_ahead():
        return Brought(directory=place.directory, alive=alive)
    directory = Path(tempfile.mkdtemp(prefix="batchrunner-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    copy = Mirror(mirror.folder, directory)
    copy.pull()
    if not (directory / "commits").is_dir():
        raise RunError(f"{place}: no run there; see that the address is right")
    copy.bring_results()
    return Brought(directory=directory, alive=alive)
