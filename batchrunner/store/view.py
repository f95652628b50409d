"""A run as its files tell it, live or dead, without its lock."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.errors import RunError
from batchrunner.schema import OUTCOME
from batchrunner.store import chain, commits, parts
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from batchrunner.store.commits import Commit, Part

CARRIED = pa.schema([("row", pa.int64()), ("sequence", pa.int64()), ("code", pa.uint8())])
"""Outcomes of earlier epochs that count in this one, by row of the current input."""

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Some outcomes, in a part or read from the journal."""

    first_sequence: int
    last_sequence: int
    epoch: int
    path: Path
    table: pa.Table | None = None

    def read(self, columns: Sequence[str]) -> pa.Table:
        if self.table is not None:
            return self.table.select(columns)
        return parts.read(self.path, columns)


class View:
    """The outcomes of a run at one moment. Reading takes time and memory, so ask once and in a thread."""

    def __init__(self, directory: Path, commit: Commit, live: Sequence[Source] = ()) -> None:
        self.directory, self.commit = directory, commit
        folder = directory / "parts"
        self.sources = (*(_part_source(folder, part) for part in commit.parts), *live)

    @property
    def run_id(self) -> str:
        return self.commit.run_id

    @property
    def outcomes_recorded(self) -> int:
        """How many outcomes were ever recorded, superseded ones included."""
        return sum(source.last_sequence - source.first_sequence + 1 for source in self.sources)

    @cached_property
    def ledger(self) -> Ledger:
        """The best outcome of each row of the current input."""
        ledger = Ledger(self.commit.rows)
        if self.commit.carried:
            carried = parts.read(self.directory / "parts" / self.commit.carried, CARRIED.names)
            _note(ledger, carried, carried["code"], self.commit.carried)
        for source in self.sources:
            if source.epoch == self.commit.epoch:
                table = source.read(["row", "sequence", "status", "error_type", "attempts"])
                _note(ledger, table, parts.codes(table), source.path)
        return ledger

    def outcomes(
        self, columns: Sequence[str] | None = None, *, rows: Collection[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The current outcomes of the current input, part by part; `row` is the row of the current input.

        Each row comes at most once, in no order that spans batches. `rows` narrows them.
        """
        wanted = list(OUTCOME.names if columns is None else columns)
        chosen = None if rows is None else pa.array(sorted(rows), pa.int64())
        for source, current in self.current():
            table = _renumbered(source.read(_with(wanted, "row", "sequence")), current)
            if chosen is not None:
                table = table.filter(pc.is_in(table["row"], chosen))
            if table.num_rows:
                yield from table.select(wanted).combine_chunks().to_batches()

    def current(self) -> Iterator[tuple[Source, Current]]:
        """The sources that hold a current outcome, each with those outcomes."""
        index = self._index
        for source in self.sources:
            start = bisect_left(index.sequences, source.first_sequence)
            stop = bisect_left(index.sequences, source.last_sequence + 1)
            if stop > start:
                yield source, Current(sequences=_numbers(index.sequences[start:stop]), rows=_numbers(index.rows[start:stop]))
