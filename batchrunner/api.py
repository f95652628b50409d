"""From Python: a job as a call, in notebooks and applications."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import create_task_group, to_thread

from batchrunner import assemble, spec
from batchrunner.errors import JobError
from batchrunner.signals import Signals
from batchrunner.sources import write_frame
from batchrunner.store import read_frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from batchrunner.events import Progress
    from batchrunner.records import Outcome
    from batchrunner.spec import JobSpec

KEYS = {
    "provider": "provider.kind",
    "base_url": "provider.base_url",
    "api_key": "provider.api_key",
    "agent_id": "request.agent_id",
    "model": "request.model",
    "prompt": "request.prompt",
    "system": "request.system",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "concurrency": "limits.concurrency",
    "max_cost": "budget.max_cost_usd",
    "deadline": "budget.deadline",
}
"""Short names of job keys."""
SECTIONS = (
    "input", "provider", "request", "limits", "retry", "timeouts", "budget", "prices", "output", "expect", "reuse",
    "storage", "telemetry", "labels",
)  # fmt: skip
WAKE_S = 0.2
"""How often a call looks for Ctrl-C."""
WAYS = ("limit", "fresh", "accept_change", "overwrite", "strict", "wait_lock_s", "grace_s", "flush_every_s")
"""What is said of one call rather than of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has ended, perhaps not finished: `exit` and `summary["reason"]` tell, as the command line's do."""

    summary: Mapping[str, Any]
    """The summary object of the README."""
    notes: tuple[str, ...] = ()
    """What a terminal would have shown beside the progress."""

    @property
    def exit(self) -> int:
        return int(self.summary["exit"])

    @property
    def ok(self) -> bool:
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
        import polars as pl

        found = pl.from_arrow(self.to_arrow())
        assert isinstance(found, pl.DataFrame)
        return found

    def to_pandas(self) -> pd.DataFrame:
        """Needs pandas."""
        return self.to_arrow().to_pandas()


@dataclass(slots=True, kw_only=True)
class _Work:
    """One call, to be carried out in a thread of its own: whoever calls may have an event loop running."""

    job: JobSpec
    invocation: assemble.Invocation
    environ: Mapping[str, str]
    watch: Callable[[Progress], None] | None = None
    period_s: float = 1.0
    notes: list[str] = field(default_factory=list)

    def __call__(self) -> Run:
        summary = assemble.invoke(self.job, self.invocation, display=self, environ=self.environ)
        return Run(summary=summary, notes=tuple(self.notes))

    # The display of the run

    def began(self, line: str, facts: dict[str, Any]) -> None:
        self.notes.append(line)

    def progress(self, now: Progress) -> None:
        if self.watch is not None:
            self.watch(now)

    def say(self, line: str) -> None:
        self.notes.append(line)

    def ended(self) -> None:
        pass


def run(job: Any = None, rows: Any = None, *, out: str | Path | None = None, **settings: Any) -> Run:
    """Start or resume a run, wait for its end, and give it.

    `job` is a .toml job file, or a rows file. `rows` are rows in memory, a polars, pandas or pyarrow table or a list of
    dicts, for a job without an input of its own; they are kept beside `out`, so that the same call again buys only
    what is missing. `settings` are short names (provider, base_url, api_key, agent_id, model, prompt, system, rpm,
    tpm, concurrency, max_cost, deadline), sections of a job as dicts (`request={"temperature": 0}`), `params`,
    `simulate`, `progress` (called about once a second), and of the call itself limit, max_failed, fresh,
    accept_change, overwrite, strict, wait_lock_s, grace_s, flush_every_s.

    Works while an event loop is running. Ctrl-C drains. Raises BatchrunnerError for what keeps it from starting.
    """
    signals = Signals()
    work = _work(job, rows, out, settings, signals)
    with ThreadPoolExecutor(1, thread_name_prefix="batchrunner") as pool:
        ending = pool.submit(work)
        while True:
            try:
                return ending.result(timeout=WAKE_S)
            except TimeoutError:
                if ending.done():
                    raise
            except KeyboardInterrupt:
                signals.receive(signal.SIGINT)


async def arun(job: Any = None, rows: Any = None, *, out: str | Path | None = None, **settings: Any) -> Run:
    """The same from a coroutine, in any event loop; cancelled, the run drains before the cancellation goes on."""
    signals = Signals()
    work = _work(job, rows, out, settings, signals)

    async def drain_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            signals.receive(signal.SIGTERM)

    async with create_task_group() as group:
        group.start_soon(drain_when_cancelled)
        found = await to_thread.run_sync(work)
        group.cancel_scope.cancel()
    return found


async def stream(
    job: Any = None, rows: Any = None, *, out: str | Path | None = None, **settings: Any
) -> AsyncIterator[Outcome]:
    """Outcomes as they settle, in asyncio; whoever stops listening drains the run.

    What was settled before is not told again. Outcomes wait in memory for a slow listener.
    """
    loop, waiting, signals = asyncio.get_running_loop(), asyncio.Queue[Any](), Signals()

    def tell(outcome: Outcome | None) -> None:
        loop.call_soon_threadsafe(waiting.put_nowait, outcome)

    work = _work(job, rows, out, settings, signals, hears=tell)

    def carry_out() -> Run:
        try:
            return work()
        finally:
            tell(None)

    ending = asyncio.ensure_future(asyncio.to_thread(carry_out))
    try:
        while (outcome := await waiting.get()) is not None:
            yield outcome
    finally:
        if not ending.done():
            signals.receive(signal.SIGTERM)
        await ending


def plan(job: Any = None, rows: Any = None, *, out: str | Path | None = None, **settings: Any) -> dict[str, Any]:
    """What `run` would do, as the command `plan --json` tells it: nothing is sent. Raises BatchrunnerError."""
    work = _work(job, rows, out, settings, Signals())
    return assemble.plan(work.job, work.invocation, environ=work.environ)


def _work(
    job: Any,
    rows: Any,
    out: str | Path | None,
    settings: dict[str, Any],
    signals: Signals,
    *,
    hears: Callable[[Outcome], None] | None = None,
) -> _Work:
    environ = dict(os.environ)
    params, simulate = settings.pop("params", {}), bool(settings.pop("simulate", False))
    watch, max_failed = settings.pop("progress", None), str(settings.pop("max_failed", 0))
    ways = {name: settings.pop(name) for name in WAYS if name in settings}
    overrides = _overrides(settings)
    if rows is not None:
        if out is None:
            raise JobError("out: expected a directory for the run, since rows in memory have no place of their own")
        overrides["input.path"] = str(write_frame(rows, Path(f"{out}.rows.parquet").absolute()))
    loaded = _job(job, overrides, params, environ)
    found = spec.run_dir(loaded, out=None if out is None else str(out), simulate=simulate)
    place = assemble.place_of(found, environ)
    invocation = assemble.Invocation(
        directory=place.directory,
        address=place.address,
        max_failed=spec.parse_max_failed(max_failed),
        simulate=simulate,
        signals=signals,
        hears=hears,
        call={"given": {"simulate": simulate, "max_failed": max_failed}},
        command=f"batchrunner.run(out={str(place)!r}, ...)",
        **ways,
    )
    return _Work(job=loaded, invocation=invocation, environ=environ, watch=watch)


def _job(job: Any, overrides: dict[str, Any], params: Mapping[str, Any], environ: Mapping[str, str]) -> JobSpec:
    texts = {name: str(value) for name, value in params.items()}
    if job is not None and str(job).endswith(".toml"):
        return spec.load(Path(job), overrides=overrides, params=texts, environ=environ)
    path = overrides.pop("input.path", None) if job is None else job
    if path is None:
        raise JobError("job: expected a job file, a rows file, or rows in memory; got nothing")
    return spec.for_rows(str(path), overrides=overrides, params=texts, environ=environ)


def _overrides(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted job keys. Raises JobError for a name that is none."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and name in SECTIONS:
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif name in KEYS:
            found[KEYS[name]] = value
        else:
            known = ", ".join([*KEYS, *SECTIONS, *WAYS])
            raise JobError(f"{name}: no such setting; known are params, simulate, progress, max_failed, {known}")
    return found
