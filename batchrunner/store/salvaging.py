"""A damaged run made whole again out of what can be read; what cannot is set aside, and its items are asked again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pyarrow as pa

from batchrunner.errors import RunError
from batchrunner.store import chain, commits, files, parts
from batchrunner.store.framing import salvage_epoch, salvage_records
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.manifest import read_manifest
from batchrunner.store.view import CARRIED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchrunner.store.commits import Commit, Part


_NOT_NOW = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}
"""What says nothing about a file."""


def salvage(directory: Path, commit: Commit, mode: int) -> tuple[Commit, tuple[str, ...]]:
    """Make a commit of what can be read of a run, and tell what could not be, a sentence each.

    A sound run is left as it is. Damaged files are renamed, never removed. The commit forgets which input it
    is of, so that every row is matched anew with the outcomes that are left.
    """
    work = _Salvage(directory, commit, mode)
    work.parts()
    work.journal()
    work.names()
    return work.commit, tuple(work.lost)


class _Salvage:
    def __init__(self, directory: Path, commit: Commit, mode: int) -> None:
        self.directory, self.commit, self.mode = directory, commit, mode
        self.segments = SegmentFiles(directory / "journal", commit.run_id)
        self.lost: list[str] = []

    def parts(self) -> None:
        """Keep the parts that are what the commit says, and take in those of a commit that was lost."""
        folder, kept = self.directory / "parts", []
        for part in self.commit.parts:
            try:
                parts.check(folder, part)
                kept.append(part)
            except RunError as error:
                _check_damaged(error)
                self._set_aside(folder / part.name, error, f"its {part.rows:,} outcomes are lost")
        if len(kept) < len(self.commit.parts):
            kept = self._cleaned(folder) or kept
        found = list(self._unnamed(folder))
        carried = self._carried(folder)
        if tuple(kept) != self.commit.parts or found or carried != self.commit.carried:
            through = max((self.commit.folded_through, *(part.last_sequence for part in found)))
            self._publish((*kept, *found), carried=carried, folded_through=through)
        self.lost += [f"{folder / part.name}: taken in, although its commit is lost" for part in found]

    def _cleaned(self, folder: Path) -> list[Part]:
        """What a cleaning whose commit is lost has put in the place of all parts."""
        cleaned = [path for path in parts.unnamed(folder, self.commit) if parts.was_named(path, self.commit)]
        self.lost += [f"{path}: taken in, although its commit is lost" for path in cleaned]
        return [parts.describe(path) for path in cleaned]

    def _unnamed(self, folder: Path) -> Iterator[Part]:
        """Parts beyond what the commit knows of."""
        for path in parts.unnamed(folder, self.commit):
            if path.name[:1].isdigit() and int(path.name.partition("-")[0]) > self.commit.folded_through:
                try:
                    yield parts.describe(path)
                except RunError as error:
                    _check_damaged(error)
                    self._set_aside(path, error, "its outcomes are lost")

    def journal(self) -> None:
        """Take every record that can be read out of a journal that cannot be read as a whole."""
        after = self.commit.folded_through
        try:
            found = chain.survey(self.segments, after=after)
            for closed in found.closed:
                chain.load(self.segments, closed)
            if all(closed.epoch <= self.commit.epoch for closed in found.closed):
                return
        except RunError as error:
            reason = str(error)
        else:
            reason = f"{self.segments.directory}: of a later epoch than the last commit"
        records: dict[int, tuple[int | None, bytes]] = {}
        numbers = self.segments.numbers()
        for number in numbers:
            data = self.segments.read(number)
            epoch = salvage_epoch(data)
            for sequence, payload in salvage_records(data, run_id=self.commit.run_id, segment=number):
                # A later segment repeats what may not have been safe in the one before.
                records[sequence] = (epoch, payload)
        kept = self._of_known_epochs({number: records[number] for number in sorted(records) if number > after})
        last = max(kept, default=after)
        written = [self._part(kept, epoch) for epoch in sorted({epoch for epoch, _ in kept.values()})]
        named = (*self.commit.parts, *written)
        self._publish(named, self.commit.carried, folded_through=last, folded_segment=max(numbers, default=0))
        missing = last - after - len(kept)
        self.lost.append(
            f"{_brief(reason)}; {len(kept):,} outcomes of the journal were kept, {missing:,} before the last are lost"
        )
        for number in numbers:
            files.set_aside(self.segments.path(number))

    def _of_known_epochs(self, records: dict[int, tuple[int | None, bytes]]) -> dict[int, tuple[int, bytes]]:
        """Where a header is lost, all are of a later epoch than any other: of rows of no input that is known."""
        epochs = {epoch for epoch, _ in records.values()}
        later = max(self.commit.epoch, *(epoch or 0 for epoch in epochs), 0) + 1 if None in epochs else None
        return {number: (later or epoch or 0, payload) for number, (epoch, payload) in records.items()}

    def names(self) -> None:
        """Set aside what only looks like a commit or a manifest."""
        for path in commits.damaged(self.directory / "commits"):
            self.lost.append(f"{path}: damaged; set aside as {files.set_aside(path).name}")
        manifest = self.directory / "run.json"
        try:
            read_manifest(manifest)
        except RunError as error:
            self._set_aside(manifest, error, "it is written anew")

    def _carried(self, folder: Path) -> str | None:
        if self.commit.carried is None:
            return None
        try:
            parts.read(folder / self.commit.carried, CARRIED.names)
        except RunError as error:
            _check_damaged(error)
            self._set_aside(folder / self.commit.carried, error, "the rows are matched anew")
            return None
        return self.commit.carried

    def _part(self, records: dict[int, tuple[int, bytes]], epoch: int) -> Part:
        ours = {sequence: payload for sequence, (of, payload) in records.items() if of == epoch}
        table = parts.to_table(list(ours.values()), after=0, epoch=epoch)
        at = table.schema.get_field_index("sequence")
        table = table.set_column(at, "sequence", pa.array(list(ours), pa.int64()))
        return parts.write(self.directory / "parts", table, self.mode)

    def _publish(self, named: tuple[Part, ...], carried: str | None, **folded: int) -> None:
        epoch, rows = self.commit.epoch, self.commit.rows
        latest = max((part.epoch for part in named), default=0)
        if latest > epoch:
            # Its rows are positions in an input that only the lost commit knew.
            epoch, rows, carried = latest + 1, 0, None
        known = {**self.commit.input, "fingerprint": None}
        self.commit = self.commit.successor(parts=named, epoch=epoch, rows=rows, carried=carried, input=known, **folded)
        commits.publish(self.directory / "commits", self.commit, self.mode)

    def _set_aside(self, path: Path, error: RunError, consequence: str) -> None:
        aside = f"set aside as {files.set_aside(path).name}, " if path.exists() else ""
        self.lost.append(f"{_brief(str(error))}; {aside}{consequence}")


def _check_damaged(error: RunError) -> None:
    """Raise the system's error where the file may be sound, but cannot be read here and now."""
    cause = error.__cause__
    if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _NOT_NOW):
        raise cause


def _brief(refusal: str) -> str:
    """A refusal without its advice."""
    return refusal.rpartition("; ")[0] or refusal
