"""Small disks: a tmpfs that can be made larger."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from real.needs import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(at: Path, megabytes: float) -> Iterator[Path]:
    """A file system of its own of that size at `at`."""
    if os.geteuid():
        lacking("the right to mount", "run as root")
    at.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def enlarge(at: Path, megabytes: int) -> None:
    _mount("-o", f"remount,size={megabytes}m", str(at))


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        lacking("the right to mount", done.stderr.strip())
