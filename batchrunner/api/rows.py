"""Rows in memory: where they are kept, and that one call at a time has them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BatchrunnerError, JobError, RunLocked
from batchrunner.store import lock_is_held, lock_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_at_work: set[Path] = set()
_changed = threading.Condition()


@contextlib.contextmanager
def alone(call: tuple[Any, Any, str | Path | None], settings: Mapping[str, Any]) -> Iterator[None]:
    """While a call runs, no other one of this process replaces its rows; those of before come back if it is refused.

    Raises RunLocked.
    """
    _, rows, out = call
    if rows is None or out is None or "://" in str(out):
        yield
        return
    kept, wait_s = beside(out), min(settings.get("wait_lock_s", 0), threading.TIMEOUT_MAX)
    with _changed:
        if not _changed.wait_for(lambda: kept not in _at_work, timeout=wait_s):
            raise RunLocked(
                f"{out} is in use with other rows, by another call; wait for it (wait_lock_s), or give another out"
            )
        _at_work.add(kept)
    try:
        with _restored(kept):
            yield
    finally:
        with _changed:
            _at_work.discard(kept)
            _changed.notify_all()


@contextlib.contextmanager
def _restored(kept: Path) -> Iterator[None]:
    before = kept.with_name(f".{kept.name}.before")
    with contextlib.suppress(OSError):
        before.unlink(missing_ok=True)
        try:
            os.link(kept, before)
        except FileNotFoundError:
            pass
        except OSError:  # A file system without links.
            shutil.copy2(kept, before)
    try:
        yield
    except BatchrunnerError:
        with contextlib.suppress(OSError):
            before.replace(kept)
        raise
    finally:
        with contextlib.suppress(OSError):
            before.unlink(missing_ok=True)


def await_free(directory: Path, wait_s: float) -> None:
    """Rows that a run at work reads are not replaced under it. Raises RunLocked."""
    until = time.monotonic() + wait_s
    while lock_is_held(lock_path(directory)):
        if time.monotonic() >= until:
            raise RunLocked(f"{directory} is in use with other rows; wait for it (wait_lock_s), or give another out")
        time.sleep(0.2)


def beside(out: str | Path | None) -> Path:
    """Where rows in memory are kept."""
    if out is None:
        raise JobError("out: expected a directory for the run, since rows in memory have no place of their own")
    if "://" in str(out):
        raise JobError(
            f"out: rows in memory are kept beside the run, so expected a directory of this machine, got {str(out)!r}; "
            "or write the rows to a file, and give that as the job"
        )
    return Path(f"{out}.rows.parquet").absolute()
