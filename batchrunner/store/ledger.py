"""What is known of each row of the current input: its best outcome and the number that outcome has."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchrunner.records import Status

NONE, SUCCEEDED, REJECTED, EXHAUSTED, BAD_ROW = range(5)
"""Codes of outcomes. BAD_ROW: rejected, but not by the provider's word."""

SETTLED = bytes(code in (SUCCEEDED, REJECTED) for code in range(256))
"""For `bytes.translate`: 1 where a row needs no request, as long as input and job stay as they are.

A bad row is judged anew on each run: that costs nothing, and what made it bad may have been mended.
"""

FAILED = bytes(code in (REJECTED, EXHAUSTED, BAD_ROW) for code in range(256))
"""For `bytes.translate`: 1 where an item failed."""

_BY_STATUS = {"succeeded": SUCCEEDED, "rejected": REJECTED, "exhausted": EXHAUSTED}


def code_of(status: Status | Literal["unfinished"], error_type: str | None, attempts: int) -> int:
    """The code of an outcome; NONE for an answered turn, which is none yet."""
    if status == "unfinished":
        return NONE
    if status == "rejected" and (error_type == "bad_row" or attempts == 0):
        return BAD_ROW
    return _BY_STATUS[status]


class Ledger:
    """The best outcome of each row: a success beats everything else, then the later one wins.

    Reading it while one other thread notes outcomes is fine.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.sequence = array("q", bytes(8 * rows))
        """By row: the number of its best outcome, 0 where there is none."""
        self.codes = bytearray(rows)
        """By row: the code of its best outcome."""
        self.counts = [rows, 0, 0, 0, 0]
        """Rows by code."""

    @property
    def succeeded(self) -> int:
        return self.counts[SUCCEEDED]

    @property
    def rejected(self) -> int:
        return self.counts[REJECTED] + self.counts[BAD_ROW]

    @property
    def exhausted(self) -> int:
        return self.counts[EXHAUSTED]

    @property
    def unfinished(self) -> int:
        return self.counts[NONE]

    @property
    def settled(self) -> int:
        """How many rows need no request."""
        return self.counts[SUCCEEDED] + self.counts[REJECTED]

    def is_settled(self, row: int) -> bool:
        return bool(SETTLED[self.codes[row]])

    def settled_mask(self) -> bytes:
        """By row: 1 where no request is needed, as of now."""
        return bytes(self.codes.translate(SETTLED))

    def note(self, row: int, sequence: int, code: int) -> None:
        """Take an outcome into account."""
        old = self.codes[row]
        if code == NONE:
            return
        if old and not _better(code, sequence, old, self.sequence[row]):
            return
        self.codes[row] = code
        self.sequence[row] = sequence
        self.counts[old] -= 1
        self.counts[code] += 1

    def note_ascending(self, rows: memoryview, sequences: memoryview, codes: memoryview) -> None:
        """Take many outcomes into account, no two of the same row, in the order of their rows.

        Most parts hold whole stretches of rows that nothing is known of yet: those are copied at once.
        """
        start = 0
        while start < len(rows):
            first = rows[start]
            # While rows ascend, a row that is as far from the first as its place ends an unbroken stretch.
            end = bisect_right(range(len(rows)), 0, lo=start, key=lambda at: rows[at] - first - (at - start))
            self._note_stretch(first, rows[start:end], sequences[start:end], codes[start:end])
            start = end

    def _note_stretch(self, first: int, rows: memoryview, sequences: memoryview, codes: memoryview) -> None:
        stop, found = first + len(rows), bytes(codes)
        if any(self.codes[first:stop]) or NONE in found:
            self.note_all(rows, sequences, codes)
            return
        self.codes[first:stop] = found
        memoryview(self.sequence)[first:stop] = sequences
        for code in set(found):
            count = found.count(code)
            self.counts[NONE] -= count
            self.counts[code] += count

    def note_all(self, rows: Iterable[int], sequences: Iterable[int], codes: Iterable[int]) -> None:
        """Take many outcomes into account."""
        held, numbers, counts = self.codes, self.sequence, self.counts
        for row, sequence, code in zip(rows, sequences, codes, strict=True):
            old = held[row]
            if code == NONE or (old and not _better(code, sequence, old, numbers[row])):
                continue
            held[row] = code
            numbers[row] = sequence
            counts[old] -= 1
            counts[code] += 1


def _better(code: int, sequence: int, old: int, old_sequence: int) -> bool:
    return (code == SUCCEEDED, sequence) > (old == SUCCEEDED, old_sequence)
