"""Where a run's lock and journal are: in its directory, or, by a link there, on a local disk of its owner's."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from batchrunner.errors import RunError
from batchrunner.store import files

JOURNAL = "journal"

_UNSURE = re.compile(r"nfs4?|cifs|smb\w*|fuse\..+|9p|ceph|glusterfs|lustre|afs|gpfs|beegfs")
"""File systems whose locks and syncs are not always what they say."""


def lock_path(directory: Path) -> Path:
    """The lock of the run in `directory`: beside its journal."""
    journal = directory / JOURNAL
    return (journal.readlink().parent if journal.is_symlink() else directory) / "lock"


def check_reachable(journal: Path) -> None:
    """Raise RunError where a journal is on a disk that is not there."""
    if journal.is_symlink() and not journal.is_dir():
        raise RunError(
            f"{journal}: it is in {journal.readlink()}, which is not there; give the command on the machine that has "
            "it, or run with --salvage: what is in no part yet is asked again"
        )


def settle(directory: Path, state_dir: Path | None, *, salvage: bool) -> tuple[str, ...]:
    """See that the journal has its place: in `state_dir` for a new run that is given one.

    Gives what `salvage` has lost by that. Raises RunError where it is elsewhere already, or cannot be reached.
    """
    journal = directory / JOURNAL
    lost: tuple[str, ...] = ()
    try:
        check_reachable(journal)
    except RunError:
        if not salvage:
            raise
        aside = files.set_aside(journal)
        gone = f"{journal}: was in {aside.readlink()}, which is not there; the link is set aside as {aside.name}, "
        lost = (gone + "what is in no part is asked again",)
    if state_dir is not None:
        _link(directory, journal, state_dir)
    return lost


def _link(directory: Path, journal: Path, state_dir: Path) -> None:
    if not journal.is_symlink() and not journal.is_dir():
        place = state_dir.absolute() / f"{directory.name}-{secrets.token_hex(6)}" / JOURNAL
        files.make_directory(place)
        with suppress(FileExistsError):
            journal.symlink_to(place, target_is_directory=True)
        files.sync_directory(directory)
    where = journal.resolve()
    if not where.is_relative_to(state_dir.resolve()):
        raise RunError(
            f"{directory} keeps its journal in {where}; leave --state-dir out (BATCHRUNNER_STATE_DIR too), or begin "
            "anew with --fresh"
        )


def doubts(directory: Path) -> str | None:
    """What the file system below a run may not keep, None where nothing is known against it."""
    kind = _file_system(directory / JOURNAL)
    if kind == "overlay":
        return f"{directory} is inside a container's own layer and goes with it; give an --out on a mounted volume"
    if _UNSURE.fullmatch(kind):
        return (
            f"{directory} is on {kind}, where locks and syncs may not hold; commits still keep a second run out, and "
            "--state-dir DIR puts lock and journal on a local disk"
        )
    return None


def unsure_file_system(path: Path) -> str | None:
    """The type of the file system below `path` where its locks may not hold, else None."""
    kind = _file_system(path)
    return kind if _UNSURE.fullmatch(kind) else None


def _file_system(path: Path) -> str:
    """The type of the file system below `path`, as Linux names it; empty where that is not known."""
    where, kind, longest = path.resolve(), "", -1
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, more = line.partition(" - ")
        mount = Path(fields.split(" ")[4].encode().decode("unicode_escape"))
        if where.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = more.split(" ")[0], len(mount.parts)
    return kind
