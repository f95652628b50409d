"""Input on object stores: found by pattern, and copied to this machine when it is first read.

A copy is of one version, so that what was checked is what is sent, and a night's reading survives the network.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from batchrunner.objects.address import below, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchrunner.objects.folder import Entry, Folder

KEPT_S = 7 * 86_400.0
"""Copies that nobody has used for so long go."""
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One object of the input, of one version, and where its copy is or will be."""

    address: str
    size: int
    etag: str
    path: Path
    bring: Callable[[], None]
    """Makes the copy."""

    def at_hand(self) -> Path:
        """The copy, made if it is not there. Raises ObjectsError."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.bring()
        return self.path


class Copies:
    """Copies below `root`, of what `open_folder` reaches."""

    def __init__(self, root: Path, open_folder: Callable[[str], Folder]) -> None:
        self._root, self._open = root, open_folder

    def find(self, pattern: str) -> list[Copy]:
        """The objects that a pattern names, in the order of their names. Raises ValueError, ObjectsError."""
        bucket, key = parts_of(pattern)
        self._sweep()
        folder = self._open(bucket)
        if not _MAGIC.search(key):
            entry = folder.head(key)
            return [] if entry is None else [self._copy(bucket, folder, entry)]
        plain = key[: _MAGIC.search(key).start()]  # type: ignore[union-attr]
        matches = re.compile(_expression(key)).fullmatch
        found = [entry for entry in folder.entries(plain.rpartition("/")[0]) if matches(entry.name)]
        return [self._copy(bucket, folder, entry) for entry in sorted(found, key=lambda entry: entry.name)]

    def _copy(self, bucket: str, folder: Folder, entry: Entry) -> Copy:
        address, etag = below(bucket, entry.name), entry.etag or f"{entry.modified:%Y%m%d%H%M%S}-{entry.size}"
        version = sha256(f"{address} {etag}".encode()).hexdigest()[:32]
        path = self._root / f"{version}-{entry.name.rpartition('/')[2][-100:]}"
        return Copy(
            address=address,
            size=entry.size,
            etag=etag,
            path=path,
            bring=lambda: folder.fetch(entry.name, path, etag=entry.etag),
        )

    def _sweep(self) -> None:
        with suppress(OSError):
            for path in self._root.iterdir():
                if path.stat().st_mtime < time.time() - KEPT_S:
                    path.unlink()


def _expression(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stay within one step, `**/` spans any number of them."""
    found = ""
    for piece in re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern):
        match piece:
            case "**/":
                found += "(?:.*/)?"
            case "*":
                found += "[^/]*"
            case "?":
                found += "[^/]"
            case _ if piece.startswith("[") and piece.endswith("]"):
                found += f"[^{piece[2:]}" if piece[1] == "!" else piece
            case _:
                found += re.escape(piece)
    return found
