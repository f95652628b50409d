"""One process owns a run: a kernel lock for life. What the file says is for the message only."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from batchrunner.errors import RunError, RunLocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_POLL_S = 0.2
_BLINK_S = 0.05
"""How long somebody who only looks, as `lock_is_held` does, may seem to hold the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A held lock. The kernel lets go of it when this process ends, however it ends."""

    file: int

    def release(self) -> None:
        os.close(self.file)


def acquire(
    path: Path,
    *,
    wait_s: float = 0.0,
    shown: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Lock:
    """Take the lock at `path`, or raise RunLocked once `wait_s` has passed; `shown` is the run's name for people."""
    waited_s = 0.0
    lock = _try(path, clock)
    if lock is None:
        sleep(_BLINK_S)
        lock = _try(path, clock)
    while lock is None:
        if waited_s >= wait_s:
            raise RunLocked(f"{shown or path.parent} is in use{_holder(path)}; {_WAY_OUT}")
        sleep(_POLL_S)
        waited_s += _POLL_S
        lock = _try(path, clock)
    return lock


def lock_is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path` just now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; see to the path and its permissions") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


_WAY_OUT = "wait for it (--wait-lock 10m), or give another --out"


def _try(path: Path, clock: Callable[[], float]) -> Lock | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not (_flock(file, path) and _still_there(file, path)):
            os.close(file)
            return None
        _sign(file, clock())
    except BaseException:
        os.close(file)
        raise
    return Lock(file=file)


def _flock(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunError(
            f"{path}: this file system does not lock files ({error.strerror}); give an --out on a local disk"
        ) from error
    return True


def _still_there(file: int, path: Path) -> bool:
    # The directory may have been renamed away between opening the file and locking it.
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: int, now: float) -> None:
    holder = {"pid": os.getpid(), "host": os.uname().nodename, "since": round(now)}
    os.ftruncate(file, 0)
    os.pwrite(file, orjson.dumps(holder), 0)


def _holder(path: Path) -> str:
    try:
        holder = orjson.loads(path.read_bytes())
        since = datetime.fromtimestamp(holder["since"], tz=UTC).astimezone()
        return f" by pid {holder['pid']} on {holder['host']} since {since:%H:%M}"
    except (OSError, ValueError, KeyError, TypeError):
        # Not yet signed, or signed by hand: the lock holds all the same.
        return ""
