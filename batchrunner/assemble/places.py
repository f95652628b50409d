"""Where runs and inputs are that are no directory: addresses on object stores, and this machine's part of them."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.errors import RunError, RunLocked, StoreError
from batchrunner.objects import RETRY_S, Copies, ObjectsError, Stores, name_of, run_directory, state_root
from batchrunner.store import Mirror, RunClaim, same_owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.spec import StorageSpec

SHARD = re.compile(r"shard-\d+-of-\d+")


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


def put_address_aside(mirror: Mirror, storage: StorageSpec, environ: Mapping[str, str]) -> None:
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


def bring(
    place: Place, storage: StorageSpec, environ: Mapping[str, str], *, results: bool = False, into: Path | None = None
) -> Brought:
    """What there is of a run on an object store; this machine's own part, where that goes on from it.

    With the results, if asked for; what was brought `into` a directory before is only brought up to date. Raises
    RunError where there is none, StoreError where the store cannot be reached.
    """
    mirror = mirror_of(place, storage, environ)
    if mirror is None:
        raise ValueError(f"{place} is a directory")
    alive = RunClaim(mirror.folder).alive()
    if mirror.is_ahead():
        return Brought(directory=place.directory, alive=alive)
    directory = into or _scratch()
    copy = Mirror(mirror.folder, directory)
    copy.refresh()
    if not (directory / "commits").is_dir():
        raise RunError(f"{place}: no run there; see that the address is right")
    if results:
        copy.bring_results()
    return Brought(directory=directory, alive=alive)


def bring_shards(place: Place, storage: StorageSpec, environ: Mapping[str, str]) -> Path:
    """A directory with what a merge needs of the shard runs below an address, or of the one at it.

    Raises RunError where there are none, RunLocked while one is at work, StoreError.
    """
    stores, directory = Stores(storage, environ), _scratch()
    whole = stores.folder(str(place))
    try:
        steps = [entry.name.split("/") for entry in whole.entries()]
    except ObjectsError as error:
        raise RunError(str(error)) from error
    names = sorted({step[0] for step in steps if SHARD.fullmatch(step[0]) and step[1:2] == ["commits"]})
    if not names and ["commits"] not in [step[:1] for step in steps]:
        raise RunError(f"{place}: no shard run and no shard-I-of-N there; see that the address is right")
    if not names:
        names, whole = [name_of(str(place))], stores.folder(str(place).rpartition("/")[0])
    for name in names:
        folder = stores.folder(whole.where(name))
        if RunClaim(folder).alive():
            raise RunLocked(f"{folder.address} is still at work; merge when it has ended")
        Mirror(folder, directory / name).bring_finished()
    return directory


def names_at(address: str, storage: StorageSpec, environ: Mapping[str, str]) -> set[str]:
    """What there is right below an address. Raises RunError."""
    try:
        return {entry.name.split("/")[0] for entry in Stores(storage, environ).folder(address).entries()}
    except ObjectsError as error:
        raise RunError(str(error)) from error


def put_file(path: Path, address: str, storage: StorageSpec, environ: Mapping[str, str], *, overwrite: bool) -> None:
    """Put merged results at an address: over others, or over earlier ones with other rows only if told to.

    Raises RunError, StoreError.
    """
    parent, _, name = address.rpartition("/")
    folder = Stores(storage, environ).folder(parent)
    try:
        if not overwrite and folder.head(name) is not None:
            found = _scratch() / name
            folder.fetch(name, found)
            if not same_owner(found, path):
                raise StoreError(f"{address} was not merged of this job; move it away, or replace it with --overwrite")
        folder.put(name, path)
    except ObjectsError as error:
        raise StoreError(f"{error}; see to the store, then merge again") from error


def _scratch() -> Path:
    """A directory that goes when this process ends."""
    directory = Path(tempfile.mkdtemp(prefix="batchrunner-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
