"""Taking hold of a run directory: made where there is none, locked, and put in order."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from batchrunner.errors import RunError, RunLocked
from batchrunner.store import chain, commits, files, lock, parts, places, salvaging
from batchrunner.store.commits import Commit
from batchrunner.store.framing import WAY_OUT
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.manifest import read_manifest
from batchrunner.store.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.store.chain import Survey
    from batchrunner.store.lock import Lock
    from batchrunner.store.mirror import Mirror

FOLDERS = ("commits", "journal", "parts")


def open_run(
    directory: Path,
    *,
    wait_s: float = 0.0,
    mode: int = 0o640,
    create: bool = True,
    salvage: bool = False,
    state_dir: Path | None = None,
    mirror: Mirror | None = None,
) -> Run:
    """Take hold of the run in `directory`, or of a new one there; what a kill left behind becomes a part.

    Raises RunLocked when another process still has it after `wait_s`, RunError when the directory is
    not ours, damaged or not writable, StoreError when the disk fails. Nothing is touched before the
    lock is held, and nothing at all in a run of a newer version. With `salvage`, damage is no refusal: what can
    be read is kept, the rest set aside. A new run keeps lock and journal in `state_dir`, if given one. With a
    `mirror` the run is on an object store, and `directory` is this machine's part of it.
    """
    with files.preparing(directory):
        _check_ours(directory, create=create or mirror is not None)
        files.make_directory(directory)
        lost = places.settle(directory, state_dir, salvage=salvage)
        for folder in FOLDERS:
            files.make_directory(directory / folder)
        path = places.lock_path(directory)
        held = lock.acquire(path, wait_s=wait_s, shown=mirror.address if mirror else None)
        try:
            told = _meet(mirror, directory, wait_s=wait_s, create=create) if mirror else ()
            if places.lock_path(directory) != path:
                raise RunLocked(f"{directory} was put aside by its owner meanwhile; give the same command again")
            run = _recover(directory, held, mode, salvage=salvage, mirror=mirror)
            run.recovered = replace(run.recovered, lost=(*lost, *run.recovered.lost), notes=told)
            return run
        except BaseException:
            if mirror:
                mirror.close(whole=False)
            held.release()
            raise


def _meet(mirror: Mirror, directory: Path, *, wait_s: float, create: bool) -> tuple[str, ...]:
    """Hold the run where it is, and bring this machine's part up to that. Gives what a person should know."""
    told = mirror.take(wait_s=wait_s, create=create)
    told += mirror.pull()
    for folder in FOLDERS:
        files.make_directory(directory / folder)
    return told


def _check_ours(directory: Path, *, create: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory} is not a directory; give another --out")
    paths = directory.iterdir() if directory.exists() else ()
    names = {path.name for path in paths if not path.name.startswith("superseded-")}
    if not create and "commits" not in names:
        raise RunError(f"{directory}: no run here; see that the path is right, or start one with `batchrunner run`")
    known = {"commits", "run.json"} & names or names <= {*FOLDERS, "lock", "owner"}
    if not known or ("commits" not in names and "run.json" in names and not _our_manifest(directory)):
        some = ", ".join(sorted(names)[:3])
        raise RunError(f"{directory} is not a run directory and not empty (it holds {some}); give another --out")
    # A run of a newer version is refused here, before its lock is touched.
    commits.latest(directory / "commits")


def _our_manifest(directory: Path) -> bool:
    try:
        return "format_version" in (read_manifest(directory / "run.json") or {})
    except RunError:
        return False


def _recover(directory: Path, held: Lock, mode: int, *, salvage: bool, mirror: Mirror | None = None) -> Run:
    commit = commits.latest(directory / "commits")
    if commit is None:
        commit = _first_commit(directory)
    lost: tuple[str, ...] = ()
    if salvage and commit.number:
        commit, lost = salvaging.salvage(directory, commit, mode)
    segments = SegmentFiles(directory / "journal", commit.run_id)
    survey = chain.survey(segments, after=commit.folded_through)
    check_fits(directory, commit, survey)
    for folder in (directory, *(directory / name for name in FOLDERS)):
        files.discard_partials(folder)
    for path in parts.unnamed(directory / "parts", commit):
        files.discard(path)
    run = Run(directory, lock=held, commit=commit, mode=mode, survey=survey, mirror=mirror)
    run.recovered = replace(run.recovered, lost=lost)
    run.fold()
    segments.drop(max(segments.numbers(), default=0))
    return run


def _first_commit(directory: Path) -> Commit:
    """What stands before the first commit: nothing. Raises RunError when something does."""
    for path in (*(directory / "journal").glob("*.log"), *(directory / "parts").glob("*.parquet")):
        raise RunError(f"{directory / 'commits'}: no commit, but {path.name} is there; {commits.WAY_BACK}")
    return Commit(run_id=secrets.token_hex(16), number=0, epoch=0, input={}, asked={}, rows=0)


def check_fits(directory: Path, commit: Commit, survey: Survey) -> None:
    """Refuse what only a lost commit explains, rather than throw away what it named."""
    known = max(commit.folded_through, survey.tail.sequence)
    lost = f"commits/{commit.number:06d}.json is not the last one there was"
    for path in parts.unnamed(directory / "parts", commit):
        last = path.stem.rpartition("-")[2]
        if path.stem[:1].isdigit() and int(last) > known:
            raise RunError(f"{path}: {lost}: no commit names this part; {WAY_OUT}")
    if any(closed.epoch > commit.epoch for closed in survey.closed):
        raise RunError(f"{directory / 'journal'}: {lost}: the journal is of a later epoch; {WAY_OUT}")
