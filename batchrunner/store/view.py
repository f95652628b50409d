"""A run as its files tell it, live or dead, without its lock."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.errors import RunError
from batchrunner.schema import OUTCOME, PART
from batchrunner.store import chain, commits, parts
from batchrunner.store.framing import WAY_OUT
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from batchrunner.store.commits import Commit, Part

CARRIED = pa.schema([("row", pa.int64()), ("sequence", pa.int64()), ("code", pa.uint8())])
"""Outcomes of earlier epochs that count in this one, by row of the current input."""

READERS, AHEAD = 2, 4
"""Threads that read parts, and how many they are ahead of who uses them: a run of ten million rows has a thousand."""
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Some outcomes, in a part or read from the journal."""

    first_sequence: int
    last_sequence: int
    epoch: int
    rows: int
    """How many outcomes: numbers may be missing where a run was cleaned."""
    path: Path
    table: pa.Table | None = None

    def read(self, columns: Sequence[str]) -> pa.Table:
        if self.table is not None:
            return self.table.select(columns)
        return parts.read(self.path, columns)


def read_ahead(sources: Sequence[Source], columns: Sequence[str]) -> Iterator[tuple[Source, pa.Table]]:
    """The columns of each source in turn, the next few read meanwhile. Raises RunError."""
    with ThreadPoolExecutor(READERS) as readers:
        coming: deque[tuple[Source, Future[pa.Table]]] = deque()
        for source in sources:
            coming.append((source, readers.submit(source.read, columns)))
            if len(coming) > AHEAD:
                ready, table = coming.popleft()
                yield ready, table.result()
        for ready, table in coming:
            yield ready, table.result()


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
        """How many outcomes there are, superseded ones included."""
        return sum(source.rows for source in self.sources)

    @property
    def last_sequence(self) -> int:
        """The number of the last outcome recorded."""
        return max((self.commit.folded_through, *(source.last_sequence for source in self.sources)))

    @cached_property
    def ledger(self) -> Ledger:
        """The best outcome of each row of the current input."""
        ledger = Ledger(self.commit.rows)
        if self.commit.carried:
            carried = parts.read(self.directory / "parts" / self.commit.carried, CARRIED.names)
            note(ledger, carried, carried["code"].combine_chunks(), self.commit.carried)
        present = [source for source in self.sources if source.epoch == self.commit.epoch]
        for source, table in read_ahead(present, ["row", "sequence", "status", "error_type", "attempts"]):
            note(ledger, table, parts.codes(table), source.path)
        return ledger

    def outcomes(
        self, columns: Sequence[str] | None = None, *, rows: Collection[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The current outcomes, source by source; `row` is the row of the current input.

        Each row comes at most once, in no order that spans batches. `rows` narrows them.
        """
        wanted = list(OUTCOME.names if columns is None else columns)
        chosen = None if rows is None else pa.array(sorted(rows), pa.int64())
        for source in self.sources:
            table = self.read_current(source, wanted)
            if chosen is not None:
                table = table.filter(pc.is_in(table["row"], chosen))
            if table.num_rows:
                yield from table.select(wanted).combine_chunks().to_batches()

    def read_current(self, source: Source, columns: Sequence[str]) -> pa.Table:
        """The current outcomes of one source, with `row` and `sequence` whether asked for or not."""
        wanted = [*columns, *({"row", "sequence"} - set(columns))]
        if not len(self._current_of(source)[0]):
            return PART.empty_table().select(wanted)
        return self.keep_current(source, source.read(wanted))

    def keep_current(self, source: Source, table: pa.Table) -> pa.Table:
        """Of a source's outcomes the current ones, with the row of the current input."""
        sequences, rows = self._current_of(source)
        if len(sequences) < table.num_rows:
            table = table.filter(pc.is_in(table["sequence"], sequences))
        if source.epoch == self.commit.epoch:
            return table
        moved = rows.take(pc.index_in(table["sequence"].combine_chunks(), sequences))
        return table.set_column(table.column_names.index("row"), "row", moved)

    def _current_of(self, source: Source) -> tuple[pa.Array, pa.Array]:
        sequences, rows = self._by_sequence
        numbers = longs(sequences)
        start = bisect_left(numbers, source.first_sequence)
        length = bisect_left(numbers, source.last_sequence + 1) - start
        return sequences.slice(start, length), rows.slice(start, length)

    @cached_property
    def _by_sequence(self) -> tuple[pa.Array, pa.Array]:
        """The numbers of the current outcomes in ascending order, and the row of each."""
        numbers = pa.Array.from_buffers(pa.int64(), self.commit.rows, [None, pa.py_buffer(self.ledger.sequence)])
        order = pc.sort_indices(numbers).slice(self.ledger.unfinished)
        return numbers.take(order), order.view(pa.int64())


def view_run(directory: Path) -> View:
    """The run in `directory` as it stands. Raises RunError where there is none, or a damaged one."""
    for _ in range(_TRIES - 1):
        # The owner may make a part of a segment between our looking and our reading.
        with suppress(OSError, RunError):
            return _view(directory)
    try:
        return _view(directory)
    except OSError as error:
        raise RunError(
            f"{error.filename}: {error.strerror}; see that the path and its permissions are right"
        ) from error


def _view(directory: Path) -> View:
    commit = commits.latest(directory / "commits")
    if commit is None:
        raise RunError(f"{directory}: no run here; see that the path is right, or start one with `batchrunner run`")
    segments = SegmentFiles(directory / "journal", commit.run_id)
    found = chain.survey(segments, after=commit.folded_through)
    return View(directory, commit, [journal_source(segments, closed) for closed in found.closed])


def journal_source(segments: SegmentFiles, closed: chain.Closed) -> Source:
    """The outcomes of a segment. Raises RunError when they cannot be read."""
    payloads = chain.load(segments, closed).payloads
    return Source(
        first_sequence=closed.after + 1,
        last_sequence=closed.end.sequence,
        epoch=closed.epoch,
        rows=closed.outcomes,
        path=segments.path(closed.end.segment),
        table=parts.to_table(payloads, after=closed.after, epoch=closed.epoch),
    )


def _part_source(folder: Path, part: Part) -> Source:
    return Source(
        first_sequence=part.first_sequence,
        last_sequence=part.last_sequence,
        epoch=part.epoch,
        rows=part.rows,
        path=folder / part.name,
    )


def longs(numbers: pa.Array | pa.ChunkedArray) -> memoryview:
    """An int64 column without nulls as Python sees it, without a copy where it is in one piece."""
    whole = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    if not len(whole):
        return memoryview(array("q"))
    return memoryview(whole.buffers()[1]).cast("q")[whole.offset : whole.offset + len(whole)]


def small(numbers: pa.Array) -> memoryview:
    """A uint8 array without nulls as Python sees it."""
    if not len(numbers):
        return memoryview(b"")
    return memoryview(numbers.buffers()[1]).cast("B")[numbers.offset : numbers.offset + len(numbers)]


def note(ledger: Ledger, table: pa.Table, codes: pa.Array, where: object) -> None:
    """Take a table's outcomes into account. Raises RunError for a row that the input does not have."""
    rows = longs(table["row"])
    ends = pc.min_max(table["row"]).as_py()
    if rows and not 0 <= ends["min"] <= ends["max"] < ledger.rows:
        raise RunError(f"{where}: holds rows that the input of {ledger.rows} rows does not have; {WAY_OUT}")
    take = ledger.note_ascending if _ascending(table["row"]) else ledger.note_all
    take(rows, longs(table["sequence"]), small(codes))


def _ascending(rows: pa.ChunkedArray) -> bool:
    """Whether every row is higher than the one before it."""
    whole = rows.combine_chunks()
    return len(whole) < 2 or bool(pc.all(pc.less(whole.slice(0, len(whole) - 1), whole.slice(1))).as_py())
