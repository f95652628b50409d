"""One call from Python, carried out in a thread of its own, and the run that it gives."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner import assemble, spec
from batchrunner.api.rows import alone
from batchrunner.api.settings import check_ways, prepared
from batchrunner.signals import Signals
from batchrunner.store import read_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from batchrunner.events import Progress
    from batchrunner.records import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has ended, perhaps not finished: `exit` and `summary["reason"]` tell, as the command line's do."""

    summary: Mapping[str, Any]
    """The summary object of the README."""
    notes: tuple[str, ...] = ()
    """What a terminal would have shown beside the progress."""

    @property
    def exit(self) -> int:
        """The exit status that the command line would have had."""
        return int(self.summary["exit"])

    @property
    def ok(self) -> bool:
        """Whether everything is settled, and no more has failed than `max_failed` allows."""
        return self.exit == 0

    @property
    def path(self) -> str:
        """The run's directory or address."""
        return str(self.summary["run"])

    def to_arrow(self) -> pa.Table:
        """The table as it stands, one row per item, in input order. Raises RunError."""
        place = assemble.place_of(self.path if "://" in self.path else Path(self.path), os.environ)
        directory = place.directory
        if place.address is not None:
            directory = assemble.bring(place, spec.StorageSpec(), os.environ).directory
        table = assemble.open_table(directory)
        return read_frames(table.batches(), table.schema)

    def to_polars(self) -> pl.DataFrame:
        """The same for polars."""
        import polars as pl

        found = pl.from_arrow(self.to_arrow())
        assert isinstance(found, pl.DataFrame)
        return found

    def to_pandas(self) -> pd.DataFrame:
        """The same for pandas, which has to be installed."""
        return self.to_arrow().to_pandas()


@dataclass(slots=True, kw_only=True)
class Work:
    """One call. Whoever calls may have an event loop running, so it is carried out in another thread."""

    call: tuple[Any, Any, str | Path | None]
    """Job, rows and out."""
    settings: Mapping[str, Any]
    signals: Signals = field(default_factory=Signals)
    hears: Callable[[Outcome], None] | None = None
    period_s: float = 1.0
    notes: list[str] = field(default_factory=list)
    _watch: Callable[[Progress], object] | None = None
    _broken: BaseException | None = None

    def __post_init__(self) -> None:
        """Raises JobError."""
        check_ways(self.settings)

    def run(self) -> Run:
        """Carry it out. Raises BatchrunnerError, and what `progress` raised once the run has drained."""
        environ = dict(os.environ)
        watch = self.settings.get("progress") or None
        self._watch = _Line() if watch is True else watch
        with alone(self.call, self.settings):
            job, invocation = prepared(self.call, self.settings, environ, signals=self.signals, hears=self.hears)
            summary = assemble.invoke(job, invocation, display=self, environ=environ)
        if self._broken is not None:
            raise self._broken
        return Run(summary=summary, notes=tuple(self.notes))

    def plan(self) -> dict[str, Any]:
        environ = dict(os.environ)
        with tempfile.TemporaryDirectory(prefix="batchrunner-") as scratch:
            # The rows that the run has stay what they are.
            job, invocation = prepared(
                self.call, self.settings, environ, rows_folder=Path(scratch), signals=self.signals
            )
            return assemble.plan(job, invocation, environ=environ)

    # The display of the run

    def began(self, line: str, facts: dict[str, Any]) -> None:
        self.notes.append(line)

    def progress(self, now: Progress) -> None:
        if self._watch is None or self._broken is not None:
            return
        with ThreadPoolExecutor(1) as pool:  # What it raises must not tear down the run: answers are on their way.
            self._broken = pool.submit(self._watch, now).exception()
        if self._broken is not None:
            self.signals.receive(signal.SIGTERM)

    def say(self, line: str) -> None:
        self.notes.append(line)

    def ended(self) -> None:
        if isinstance(self._watch, _Line):
            self._watch.end()


@dataclass(slots=True)
class _Line:
    """One line on stderr that is written over: `progress=True`."""

    _shown: bool = False

    def __call__(self, now: Progress) -> None:
        parts = [
            f"{now.done:,}/{now.total:,}",
            f"{now.per_minute:.0f} rpm",
            f"{now.in_flight} in flight",
            f"{now.failed:,} failed",
            "" if now.cost_usd is None else f"${now.cost_usd:,.2f}",
        ]
        self._write(f"\r{' '.join(filter(None, parts)):<78}")
        self._shown = True

    def end(self) -> None:
        if self._shown:
            self._write("\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
