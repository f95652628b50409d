"""A run directory checked end to end: commits, journal, parts, what they say together, and the results against it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import RunError
from batchrunner.schema import RECORD
from batchrunner.store import chain, commits, opening, parts
from batchrunner.store.framing import WAY_OUT
from batchrunner.store.joining import FROM_INPUT, Join
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.lock import lock_is_held
from batchrunner.store.manifest import read_manifest
from batchrunner.store.places import lock_path
from batchrunner.store.results import OURS, RESULTS, metadata_of
from batchrunner.store.view import View, journal_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchrunner.store.commits import Commit
    from batchrunner.store.view import Source

_MADE_ANEW = "remove it and give the same command again: results are made anew, nothing is bought"
_TRIES = 5


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check found."""

    faults: list[str] = field(default_factory=list)
    """Sentences, one for each damage: where, what, and what to do."""
    notes: list[str] = field(default_factory=list)
    """What is as it should be, but good to know."""
    parts: int = 0
    outcomes: int = 0
    """In parts and journal, superseded ones included."""
    journaled: int = 0
    """Of these, how many are in no part yet."""
    rows: int = 0
    """Of the whole input."""
    finished: int = 0
    """Rows that have an outcome."""
    results: int | None = None
    """Rows of the results; None where there are none."""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A refusal within the block is a fault."""
        try:
            yield
        except RunError as error:
            self.faults.append(str(error))
        except OSError as error:
            self.faults.append(f"{error.filename}: {error.strerror}; see to its permissions and the disk")


def check_run(directory: Path) -> Report:
    """Read all of a run directory and hold it against itself. Raises RunError where there is none to be read.

    A live run goes on meanwhile: what looks wrong then is looked at again.
    """
    for _ in range(_TRIES):
        report = _check(directory)
        if not report.faults or not lock_is_held(lock_path(directory)):
            break
    return report


def _check(directory: Path) -> Report:
    report = Report()
    commit = commits.latest(directory / "commits")
    if commit is None:
        raise RunError(f"{directory}: no run here; see that the path is right")
    report.parts, report.rows = len(commit.parts), commit.rows
    sources: Sequence[Source] = ()
    with report.noting():
        # First: a live run makes parts of its journal while we are still reading those of the commit.
        sources = _journal(directory, commit, report)
    with report.noting():
        report.faults += [f"{path}: damaged; {WAY_OUT}" for path in commits.damaged(directory / "commits")]
    for part in commit.parts:
        with report.noting():
            parts.check(directory / "parts", part)
    with report.noting():
        if not report.faults:
            _check_whole(View(directory, commit, sources), report)
    with report.noting():
        if read_manifest(directory / "run.json") is None:
            report.notes.append(f"{directory / 'run.json'}: not there; the next run writes it anew")
    return report


def _journal(directory: Path, commit: Commit, report: Report) -> Sequence[Source]:
    segments = SegmentFiles(directory / "journal", commit.run_id)
    survey = chain.survey(segments, after=commit.folded_through)
    opening.check_fits(directory, commit, survey)
    if survey.torn_bytes:
        report.notes.append(f"{segments.directory}: {survey.torn_bytes:,} bytes of a torn tail; the next run cuts them")
    sources = [journal_source(segments, closed) for closed in survey.closed]
    report.journaled = sum(source.rows for source in sources)
    return sources


def _check_whole(view: View, report: Report) -> None:
    """What parts and journal say together: every current outcome is there, and the results agree."""
    report.outcomes, report.finished = view.outcomes_recorded, view.commit.rows - view.ledger.unfinished
    current = sum(batch.num_rows for batch in view.outcomes(["row"]))
    if current != report.finished:
        raise RunError(
            f"{view.directory / 'parts'}: {report.finished - current:,} outcomes that count are in no part; {WAY_OUT}"
        )
    path = view.directory / RESULTS
    if path.exists():
        report.results = _check_results(view, path, report)


def _check_results(view: View, path: Path, report: Report) -> int:
    marks = metadata_of(path)
    if marks.get(OURS) != view.run_id.encode():
        raise RunError(f"{path}: not written by this run, or damaged; {_MADE_ANEW}")
    # What a salvage has lost may stand in the results alone: they are older then, not wrong.
    stale = (
        view.commit.forgot_input
        or marks.get(b"epoch") != b"%d" % view.commit.epoch
        or marks.get(b"sequence") != b"%d" % view.last_sequence
    )
    if stale:
        report.notes.append(f"{path}: older than the outcomes; it is made anew when the run finishes")
    names = [name for name in RECORD.names if name in pq.read_schema(path).names]
    undropped = False
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file, Join(view) as join:
            for group in range(file.num_row_groups):  # One by one: a batch may span many, whatever their size.
                for batch in file.iter_batches(columns=names, row_groups=[group]):
                    undropped |= not stale and _compare(batch, join, path)
            rows = int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: {parts.reason(error)}; {_MADE_ANEW}") from error
    if undropped:
        report.notes.append(
            f"{path}: holds raw replies that are in no part; clean --drop-responses was stopped, repeat it"
        )
    if not stale and marks.get(b"rows") == b"null" and rows < report.finished:
        raise RunError(f"{path}: {rows:,} rows, but {report.finished:,} have an outcome; {_MADE_ANEW}")
    return rows


def _compare(batch: pa.RecordBatch, join: Join, path: Path) -> bool:
    """Raises RunError for what is not so. Gives whether there are raw replies that were dropped elsewhere."""
    expected = pa.Table.from_batches(join.rows_of(batch.select(list(FROM_INPUT)))).select(batch.schema.names)
    found = pa.Table.from_batches([batch]).cast(expected.schema)
    undropped = False
    if found.equals(expected):
        return undropped
    for name in found.column_names:
        for row, one, other in zip(batch["row"], found[name].to_pylist(), expected[name].to_pylist(), strict=True):
            if name == "response" and other is None and one is not None:
                undropped = True
            elif not _same(one, other):
                raise RunError(f"{path}: row {row}: column {name} is not what its outcome says; {_MADE_ANEW}")
    return undropped


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        # A sum of costs depends on the order of its terms, in its last digits.
        return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    return one == other
