"""Where a page is written to: a file of ours or none, whole or not at all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.errors import JobError
from batchrunner.report import page
from batchrunner.store import files

if TYPE_CHECKING:
    from batchrunner.report import Artist
    from batchrunner.report.sections import Document

BEGINS = b"<!doctype html>"
MODE = 0o640


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    path: Path

    @classmethod
    def checked(cls, named: str) -> Target:
        """Raises JobError where a page may not be written: no directory, something that is no file, or no page."""
        path = Path(named).resolve()  # A link stays a link.
        if not path.parent.is_dir():
            raise JobError(f"--html {named}: there is no directory {path.parent}; make it, or name another file")
        if path.exists() and not path.is_file():
            raise JobError(f"--html {named}: that is no regular file; name one that is, or that does not exist")
        if path.exists() and not _is_page(path):
            raise JobError(f"--html {named}: the file there is no HTML page; move it away, or name another file")
        return cls(path=path)

    def write(self, document: Document, artist: Artist, *, mode: str | None) -> None:
        """Put the page in place, as private as the results. Raises StoreError when the disk refuses."""
        with files.storing(self.path):
            files.write_whole(self.path, page(document, artist, at=time.time()), int(mode, 8) if mode else MODE)


def _is_page(path: Path) -> bool:
    with files.storing(path), path.open("rb") as file:
        return file.read(len(BEGINS)).lower() in (b"", BEGINS)
