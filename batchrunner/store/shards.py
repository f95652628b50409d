"""Finished shard runs, held against one another: all of one run, each there once."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import RunError, RunLocked
from batchrunner.store import commits, lock
from batchrunner.store.manifest import read_manifest
from batchrunner.store.places import lock_path
from batchrunner.store.results import OURS, RESULTS, metadata_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batchrunner.store.commits import Commit

_NAME = re.compile(r"shard-(\d+)-of-(\d+)")
_NAMED = 5
"""So many of several are named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRun:
    """A shard's run that has finished."""

    directory: Path
    index: int
    shards: int
    commit: Commit
    manifest: Mapping[str, Any]

    @property
    def results(self) -> Path:
        return self.directory / RESULTS

    @property
    def owner(self) -> str:
        """What a merged file of this job, with these parameters and this input, is known by."""
        job = self.manifest["job"]
        known = orjson.dumps([job["name"], job["params"], job["input"]["path"]], option=orjson.OPT_SORT_KEYS)
        return f"merged-{hashlib.sha256(known).hexdigest()[:16]}"


def shard_folders(directory: Path) -> list[Path]:
    """The shard runs in a directory, by index. Raises RunError when they are not all of one count."""
    found: dict[int, list[Path]] = defaultdict(list)
    for path in directory.iterdir() if directory.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name and path.is_dir():
            found[int(name[2])].append(path)
    if len(found) > 1:
        counts = " and ".join(f"{len(paths)} of {count}" for count, paths in sorted(found.items()))
        raise RunError(f"{directory}: holds shards of different counts ({counts}); name those to merge, or move others")
    return sorted((path for paths in found.values() for path in paths), key=lambda path: (len(path.name), path.name))


def open_shards(directories: Sequence[Path]) -> list[ShardRun]:
    """The shard runs in these directories, every one of a job, each once and finished.

    Raises RunLocked while one is alive, else RunError with a line for whatever is not so.
    """
    for directory in directories:
        if lock.lock_is_held(lock_path(directory)):
            raise RunLocked(f"{directory} is still at work; merge when it has ended")
    found, faults = [], []
    for directory in directories:
        try:
            found.append(_open(directory))
        except RunError as error:
            faults.append(str(error))
    faults += _unlike(found) or _places(found, looked_at=len(directories))
    if faults:
        raise RunError(*faults) if len(faults) == 1 else RunError("\n".join(faults))
    return sorted(found, key=lambda shard: shard.index)


def _open(directory: Path) -> ShardRun:
    commit = commits.latest(directory / "commits")
    if commit is None:
        raise RunError(f"{directory}: no run here; see that the path is right")
    manifest = read_manifest(directory / "run.json") or {}
    selection = manifest.get("selection") or {}
    if not selection:
        raise RunError(f"{directory}: did not begin; give its command again")
    if selection["shards"] == 1:
        raise RunError(f"{directory}: a whole run, not a shard; {directory / RESULTS} has all its rows")
    if manifest["state"] != "finished":
        left = manifest["items"]["unfinished"]
        state = "killed" if manifest["state"] == "running" else manifest["state"]
        raise RunError(f"{directory}: not finished ({state}, {left:,} items unfinished); give its command again")
    _check_results(directory / RESULTS, commit)
    return ShardRun(
        directory=directory,
        index=selection["index"],
        shards=selection["shards"],
        commit=commit,
        manifest=manifest,
    )


def _check_results(path: Path, commit: Commit) -> None:
    again = "give the shard's command again: results are made anew, nothing is bought"
    marks = metadata_of(path)
    if not path.exists():
        raise RunError(f"{path}: missing; {again}")
    if marks.get(OURS) != commit.run_id.encode():
        raise RunError(f"{path}: not written by its run, or damaged; remove it and {again}")
    if marks.get(b"epoch") != b"%d" % commit.epoch or marks.get(b"sequence") != b"%d" % commit.folded_through:
        raise RunError(f"{path}: older than the outcomes of its run; {again}")


def _unlike(found: Sequence[ShardRun]) -> list[str]:
    """What tells a shard from the first one that should not."""
    faults = []
    for shard in found[1:]:
        first = found[0]
        differences = [
            what for what, one, other in zip(_LIKE, _likeness(first), _likeness(shard), strict=True) if one != other
        ]
        if differences:
            faults.append(
                f"{shard.directory}: not of the same run as {first.directory}, it has another "
                f"{' and another '.join(differences)}; give both commands again with the same job and input, "
                "or leave one out"
            )
    return faults


_LIKE = ("number of shards", "job name", "params", "question (what the job asks)", "input")


def _likeness(shard: ShardRun) -> tuple[object, ...]:
    job = shard.manifest["job"]
    fingerprint = shard.commit.input.get("fingerprint")
    if job["input"]["path"] == "-" and fingerprint:
        # Each shard has its own copy of what came in, of its own time and place.
        copies = [{"size": file["size"], "hash": file["hash"]} for file in fingerprint["files"]]
        fingerprint = {**fingerprint, "files": copies}
    known = (fingerprint, shard.commit.rows)
    return shard.shards, job["name"], job["params"], dict(shard.commit.asked), known


def _places(found: Sequence[ShardRun], *, looked_at: int) -> list[str]:
    """A line for each shard that is missing or there twice."""
    if not found:
        return ["no shard to merge"] if not looked_at else []
    by_index: dict[int, list[ShardRun]] = defaultdict(list)
    for shard in found:
        by_index[shard.index].append(shard)
    faults = [
        f"shard {index} is there twice: {', '.join(str(one.directory) for one in same)}; name one of them"
        for index, same in sorted(by_index.items())
        if len(same) > 1
    ]
    shards = found[0].shards
    missing = [index for index in range(shards) if index not in by_index]
    if missing and len(found) == looked_at:
        named = ", ".join(f"{index}/{shards}" for index in missing[:_NAMED]) + (" ..." if missing[_NAMED:] else "")
        faults.append(
            f"{found[0].directory.parent}: {len(missing)} of {shards} shards missing: {named}; "
            f"run it with --shard {missing[0]}/{shards}, or name its directory too"
        )
    return faults
