"""The append-only log of outcomes that are in no part yet: one directory of segments, one writer."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from batchrunner.store import files
from batchrunner.store.chain import Closed
from batchrunner.store.framing import End, Header, pack_header, pack_records
from batchrunner.store.places import check_reachable

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

RESERVE_BYTES = 4 * 2**20
"""What is set aside at the start, where there is plenty."""
MOST_RESERVED = 64 * 2**20
_BESIDES = 64 * 2**10
"""For the manifest, the log and whatever else is written meanwhile."""


class SegmentFiles:
    """The segments of one journal as files."""

    def __init__(self, directory: Path, run_id: str) -> None:
        self.directory, self.run_id = directory, run_id

    def path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.log"

    def where(self, number: int) -> str:
        return str(self.path(number))

    def numbers(self) -> list[int]:
        check_reachable(self.directory)
        return sorted(int(path.stem) for path in self.directory.glob("*.log") if path.stem.isdigit())

    def read(self, number: int, size: int = -1) -> bytes:
        with self.path(number).open("rb") as file:
            return file.read(size)

    def drop(self, through: int) -> None:
        """Remove the segments up to this number, oldest first; what counted in them is in a part."""
        for number in self.numbers():
            if number <= through:
                files.discard(self.path(number))


class Reserve:
    """Room set aside, so that answers in flight still land on a full disk."""

    def __init__(self, directory: Path) -> None:
        self.path, self.size_bytes, self._kept = directory / ".reserve", 0, True
        self._wanted_bytes = 0

    def take(self) -> None:
        """Set room aside, as far as there is plenty."""
        files.discard(self.path)
        with suppress(OSError):
            self.grow(min(RESERVE_BYTES, self._free_bytes() // 8))

    def grow(self, size_bytes: int) -> None:
        """Set so much aside in all, unless it has been released. An OSError says why it cannot be."""
        size = self._wanted_bytes = max(self._wanted_bytes, min(size_bytes, MOST_RESERVED))
        if size <= self.size_bytes or not self._kept:
            return
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _allocate(file, self.size_bytes, size - self.size_bytes)
        finally:
            os.close(file)
        self.size_bytes = size

    def regain(self, beside: int = 0) -> bool:
        """Set all that is wanted aside, if as much and `beside` is left. Whether that could be done."""
        if self._free_bytes() + self.size_bytes < 2 * self._wanted_bytes + beside:
            return False
        self._kept = True
        try:
            self.grow(self._wanted_bytes)
        except OSError:
            return False
        return True

    def _free_bytes(self) -> int:
        free = os.statvfs(self.path.parent)
        return free.f_bavail * free.f_frsize

    def release(self) -> None:
        self._kept, self.size_bytes = False, 0
        files.discard(self.path)


def _allocate(file: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, offset, size)
    else:
        os.lseek(file, offset, os.SEEK_SET)
        files.write_all(file, bytes(size))


class Journal:
    """Writes outcomes so that they survive: a kill once `append` has returned, a power cut once `sync` has.

    For one thread. When a write or a sync fails, what is not yet safe goes to a new segment, durably,
    and the old one counts up to its last good sync for good: a file that failed is not believed again.
    When that fails too, the journal raises that OSError from then on; but on a full disk what could not be
    written is owed, and the next call tries again. `making_room` is held while the reserve is given up for
    what must be written: nobody else writes meanwhile.
    """

    def __init__(
        self,
        segments: SegmentFiles,
        *,
        epoch: int,
        before: End,
        number: int,
        closed: deque[Closed],
        making_room: AbstractContextManager[object] | None = None,
    ) -> None:
        self._segments, self._epoch, self._number = segments, epoch, number - 1
        self._path = segments.path(number)
        self._reserve = Reserve(segments.directory)
        self._making_room, self._largest = making_room or nullcontext(), 0
        self._unsynced: list[bytes] = []
        self._held: list[bytes] = []
        """All payloads of the open segment: a part is made of them without reading them back."""
        self._owed: list[bytes] = []
        self._file = -1
        self._before = self._synced = self._written = before
        self.closed = closed
        """Segments that wait to become a part, oldest first."""
        self.fault: OSError | None = None
        """Why nothing can be written any more."""
        self.full: OSError | None = None
        """Why outcomes are owed that were appended, but could not be written."""
        self.failures: list[OSError] = []
        """What went wrong, whether it was survived or not."""
        self._reserve.take()
        self._begin_segment(before, [])

    @property
    def sequence(self) -> int:
        """The last outcome's number."""
        return self._written.sequence

    @property
    def outcomes(self) -> int:
        """How many outcomes the open segment holds."""
        return self._written.sequence - self._before.sequence

    @property
    def size_bytes(self) -> int:
        """How long the open segment is."""
        return self._written.length

    @property
    def unsynced(self) -> int:
        """How many outcomes a power cut would take."""
        return len(self._unsynced)

    @property
    def unsynced_bytes(self) -> int:
        return self._written.length - self._synced.length

    def append(self, payloads: Sequence[bytes], *, expected: int = 0) -> int:
        """Write these payloads as records, in one call to the system; give the last one's sequence.

        Room is set aside for as many more as are `expected`. Where there is none that is a failure,
        although everything was written.
        """
        self._check()
        self._set_aside(payloads, expected)
        if self.full is not None:
            self._owed += payloads
            self._pay()
            return self._written.sequence
        after = self._written
        records = pack_records(payloads, run_id=self._segments.run_id, segment=after.segment, after=after.sequence)
        try:
            with files.named(self._path):
                files.write_all(self._file, records)
        except OSError as error:
            self._owed = list(payloads)
            self._rescue(error)
        else:
            self._unsynced += payloads
            self._held += payloads
            sequence, length = after.sequence + len(payloads), after.length + len(records)
            self._written = End(segment=after.segment, sequence=sequence, length=length)
        return self._written.sequence

    def sync(self) -> None:
        """Return once every record survives a power cut."""
        self._check()
        if self.full is not None:
            self._pay()
        if not self._unsynced:
            return
        try:
            with files.named(self._path):
                files.sync_file(self._file)
        except OSError as error:
            self._rescue(error)
        else:
            self._synced, self._unsynced = self._written, []

    def rotate(self) -> None:
        """Close the open segment and go on in a new one."""
        self.sync()
        self._go_on([])

    def close(self) -> None:
        """Sync and write no more; the open segment joins the closed ones. Later calls do nothing.

        When that fails the journal stays open, so that it can be tried again. One that has failed for good only
        lets go of its file, which stays for the next start.
        """
        if self._file < 0:
            return
        if self.fault is None:
            self.sync()
            self._closed_at(self._written, self._before, self._held)
        file, self._file = self._file, -1
        # All of it is synced, whatever the system says now; and trying again would close another's file.
        with suppress(OSError):
            os.close(file)
        self._reserve.release()

    def regain_room(self, beside: int = 0) -> bool:
        """Whether there is plenty of room and `beside`, with the reserve set aside; then the full disk is forgotten."""
        if self.full is not None or not self._reserve.regain(beside):
            return False
        self.failures = [error for error in self.failures if error.errno not in files.FULL]
        return True

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self._file < 0:
            raise OSError(errno.EBADF, "the journal is closed", str(self._path))

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    def _set_aside(self, payloads: Sequence[bytes], expected: int) -> None:
        """Answers differ in size: those to come may be half as large again as the largest so far."""
        self._largest = max([self._largest, *map(len, payloads)])
        try:
            with files.named(self._reserve.path):
                self._reserve.grow(_BESIDES + expected * self._largest * 3 // 2)
        except OSError as error:
            if error.errno in files.FULL and not self.failures:
                self.failures.append(error)

    def _rescue(self, error: OSError) -> None:
        with self._making_room:
            self._note(error)
            if self._owed and error.errno in files.FULL:
                self._sync_earlier()
            self._go_on([*self._unsynced, *self._owed])

    def _pay(self) -> None:
        """Write what is owed since the disk was full."""
        with self._making_room:
            self._go_on([*self._unsynced, *self._owed])

    def _sync_earlier(self) -> None:
        # A full disk harms nothing that was written before: what need not be written again needs no room.
        with suppress(OSError):
            files.sync_file(self._file)
            self._synced, self._unsynced = self._written, []

    def _go_on(self, payloads: list[bytes]) -> None:
        abandoned, end, before, held = self._file, self._synced, self._before, self._held
        self._begin_segment(end, payloads)
        self._closed_at(end, before, held)
        # Nothing in it is waited for: its last sync went well, or it is not believed any more.
        with suppress(OSError):
            os.close(abandoned)

    def _begin_segment(self, before: End, payloads: list[bytes]) -> None:
        """Begin a segment behind `before` with these payloads in it, durably: all of it exists, or none."""
        try:
            self._create_segment(before, payloads)
        except OSError as error:
            self._note(error)
            # Under another number: whatever may have come of the first try, nothing goes on from it.
            try:
                self._create_segment(before, payloads)
            except OSError as second:
                self._note(second)
                if second.errno in files.FULL:
                    self.full = second
                else:
                    self.fault = second
                raise
        self.full = None

    def _create_segment(self, before: End, payloads: list[bytes]) -> None:
        self._number += 1
        self._path = self._segments.path(self._number)
        run_id, number = self._segments.run_id, self._number
        header = pack_header(Header(run_id=run_id, segment=number, epoch=self._epoch, before=before))
        data = header + pack_records(payloads, run_id=run_id, segment=number, after=before.sequence)
        files.write_new(self._path, data)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._before = before
        self._written = self._synced = End(segment=number, sequence=before.sequence + len(payloads), length=len(data))
        self._unsynced, self._owed, self._held = [], [], list(payloads)

    def _closed_at(self, end: End, before: End, held: list[bytes]) -> None:
        count = end.sequence - before.sequence
        if count > 0:
            payloads = tuple(held[:count])
            self.closed.append(Closed(end=end, after=before.sequence, epoch=self._epoch, payloads=payloads))

    def _note(self, error: OSError) -> None:
        self.failures.append(error)
        if error.errno in files.FULL:
            self._reserve.release()
