"""Files that a crash leaves absent, as they were, or whole; never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

from batchrunner.errors import RunError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
"""What a file system answers that has no hard links."""

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a file system answers that has no room left."""


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path` so that a crash leaves the old file or the new one."""
    replace(put_beside(path, data, mode), path)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path`, durably and whole. Raises FileExistsError when somebody else was first."""
    publish(put_beside(path, data, mode), path)


def put_beside(path: Path, data: bytes, mode: int) -> Path:
    """Write `data` beside `path`; nothing is left behind when that fails."""
    file = create_beside(path, mode)
    beside = beside_of(path)
    try:
        with named(beside):
            write_all(file, data)
            sync_file(file)
    except OSError:
        discard(beside)
        raise
    finally:
        os.close(file)
    return beside


def beside_of(path: Path) -> Path:
    """Where `path` is written before it is whole."""
    return path.with_name(f".{path.name}.partial")


def create_beside(path: Path, mode: int) -> int:
    """Open an empty file beside `path` for writing, with exactly this mode whatever the umask says."""
    beside = beside_of(path)
    discard(beside)
    file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(file, mode)
    except OSError:
        os.close(file)
        discard(beside)
        raise
    return file


def replace(beside: Path, path: Path) -> None:
    """Let the file written beside take the place of `path`."""
    try:
        identity = beside.stat().st_ino
        beside.replace(path)
        _check_arrived(path, identity)
    except OSError:
        discard(beside)
        raise
    sync_directory(path.parent)


def publish(beside: Path, path: Path, *, link: Callable[[Path, Path], None] = os.link) -> None:
    """Give the file written beside its name, if nobody has taken that name.

    Raises FileExistsError when somebody has. Whatever fails, neither name is left behind.
    """
    try:
        identity = beside.stat().st_ino
        _name_exclusively(beside, path, link)
        _check_arrived(path, identity)
    finally:
        discard(beside)
    try:
        sync_directory(path.parent)
    except OSError:
        # Otherwise the next try would take this leftover for another writer's file.
        discard(path)
        raise


def _name_exclusively(beside: Path, path: Path, link: Callable[[Path, Path], None]) -> None:
    try:
        link(beside, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Without links: claim the name, then put the whole file over the empty claim.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            beside.replace(path)
        except OSError:
            discard(path)
            raise


def _check_arrived(path: Path, identity: int) -> None:
    # What follows may delete the only other copy, so the system's word alone is not enough.
    if path.stat().st_ino != identity:
        raise OSError(errno.EIO, "the file did not get its name", str(path))


def write_all(file: int, data: bytes) -> None:
    """Write every byte, in one call to the system where that takes them all."""
    left = memoryview(data)
    while left:
        written = os.write(file, left)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        left = left[written:]


def sync_file(file: int) -> None:
    """Return once the file's bytes survive a power cut."""
    if sys.platform == "darwin":
        import fcntl

        # There fsync leaves the bytes in the drive's cache.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(file)


def sync_directory(path: Path) -> None:
    """Return once the names in this directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with named(path):
            os.fsync(directory)
    finally:
        os.close(directory)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durably, where there is none."""
    if path.is_dir():
        return
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def discard(path: Path) -> None:
    """Remove a file that nothing counts on; one that stays is removed at the next start."""
    with suppress(OSError):
        path.unlink()


def set_aside(path: Path) -> Path:
    """Rename what cannot be used, so that it can still be looked at; give its new name."""
    names = (path.with_name(f"{path.name}.damaged" + (f".{number}" if number else "")) for number in count())
    aside = next(name for name in names if not os.path.lexists(name))
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def discard_partials(directory: Path) -> None:
    """Remove what a killed process left half written in this directory."""
    for leftover in directory.glob(".*.partial"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            discard(leftover)


SHUT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What the system answers for a place that cannot be written to at all."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an error of a bare descriptor say which file it was."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write below `path` into a StoreError."""
    try:
        yield
    except OSError as error:
        raise refusal(error, path) from error


@contextmanager
def preparing(path: Path) -> Iterator[None]:
    """Like `storing`, but a directory that cannot be written to at all is a RunError: nothing has been sent."""
    try:
        yield
    except OSError as error:
        if error.errno in SHUT:
            where = error.filename or path
            raise RunError(f"{where}: {_said(error)}; see to its permissions, or give another --out") from error
        raise refusal(error, path) from error


def refusal(error: OSError, path: Path) -> StoreError:
    """One sentence: the file, what the system said, and what to do."""
    full = error.errno in FULL
    cure = "make room" if full else "see to the disk"
    return StoreError(f"{error.filename or path}: {_said(error)}; {cure}, then give the same command again", full=full)


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
