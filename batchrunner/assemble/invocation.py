"""What a command line says beyond the job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.assemble.places import Place
from batchrunner.signals import Signals
from batchrunner.spec import NO_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batchrunner.limits import Lease
    from batchrunner.records import Outcome
    from batchrunner.spec import JobSpec, MaxFailed, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """Items to buy again, and the job that says what is sent this time."""

    ids: frozenset[str]
    changed: JobSpec | None = None
    changes: str = ""


FLUSH_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What a command line says beyond the job."""

    directory: Path
    address: str | None = None
    """Of a run on an object store; `directory` is this machine's part of it then."""
    shard: Shard | None = None
    limit: int | None = None
    max_failed: MaxFailed = NO_FAILURES
    skip_exit_code: int | None = None
    """Instead of 0 where the whole input has no rows."""
    strict: bool = False
    fresh: bool = False
    accept_change: bool = False
    salvage: bool = False
    overwrite: bool = False
    state_dir: Path | None = None
    flush_every_s: float | None = None
    """How old outcomes may be that are in no part yet. None: on an object store `FLUSH_EVERY_S`, else any age."""
    wait_lock_s: float = 0.0
    grace_s: float = 25.0
    disk_wait_s: float = 60.0
    patient: bool = False
    simulate: bool = False
    redo: Redo | None = None
    lease: Lease | None = None
    """Shares the rates with other processes, in the place of the job's own."""
    command: str = "batchrunner run"
    ways_out: tuple[str, ...] = ()
    """What to do when settled items would be bought again, ready to be pasted."""
    call: Mapping[str, Any] = field(default_factory=dict)
    signals: Signals = field(default_factory=Signals)
    hears: Callable[[Outcome], None] | None = None
    """Told of each outcome as it settles, from another thread; returns at once, raises nothing."""

    @property
    def place(self) -> Place:
        return Place(directory=self.directory, address=self.address)

    @property
    def flushed_every_s(self) -> float | None:
        return FLUSH_EVERY_S if self.flush_every_s is None and self.address else self.flush_every_s
