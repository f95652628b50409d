"""From Python: a job as a call, in notebooks and applications."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from batchrunner.api.settings import Settings
from batchrunner.api.work import Run, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path
    from typing import TypeAlias, TypeVar, Unpack

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from batchrunner.records import Outcome

    Job: TypeAlias = str | Path | Mapping[str, Any] | None
    Rows: TypeAlias = pl.DataFrame | pd.DataFrame | pa.Table | list[dict[str, Any]] | None
    Got = TypeVar("Got")

__all__ = ["Run", "Settings", "arun", "plan", "run", "stream"]

WAKE_S = 0.2
"""How often a call looks for Ctrl-C."""


def run(job: Job = None, rows: Rows = None, *, out: str | Path | None = None, **settings: Unpack[Settings]) -> Run:
    """Start or resume a run, wait for its end, and give it.

    `job` is a .toml job file, a rows file, or a job file's content as a dict (its paths are relative to the working
    directory). `rows` are rows in memory, a polars, pandas or pyarrow table or a list of dicts; they are kept beside
    `out`, as `OUT.rows.parquet`, so that the same call again buys only what is missing. `out` is the run's directory;
    without it a job or rows file has the one that the command line gives it. `settings` are those of `Settings`:
    short names (provider, base_url, api_key, agent_id, model, prompt, system, rpm, tpm, concurrency, max_cost,
    deadline), sections of a job as dicts (`request={"temperature": 0}`, `matrix={"agent_id": [1, 2]}`; `score` is a
    list of them), `params`, `simulate`, `progress` (called
    about once a second in another thread; True writes a line to stderr), and of the call itself limit, max_failed,
    fresh, accept_change, overwrite, strict, wait_lock_s, grace_s, flush_every_s.

    Works while an event loop is running, which waits. Ctrl-C drains, a second one gives up what is in flight, and
    KeyboardInterrupt goes on once the run has ended. Raises BatchrunnerError for what keeps it from starting.
    """
    work = Work(call=(job, rows, out), settings={**settings})
    with ThreadPoolExecutor(1, thread_name_prefix="batchrunner") as pool:
        ending, interrupted = pool.submit(work.run), False
        while not ending.done():
            try:
                wait([ending], timeout=WAKE_S)
            except KeyboardInterrupt:
                interrupted = True
                work.signals.receive(signal.SIGINT)
        if interrupted:
            raise KeyboardInterrupt
        return ending.result()


async def arun(
    job: Job = None, rows: Rows = None, *, out: str | Path | None = None, **settings: Unpack[Settings]
) -> Run:
    """The same from a coroutine, in asyncio; cancelled, the run drains before the cancellation goes on."""
    work = Work(call=(job, rows, out), settings={**settings})
    return await _until_end(_begun(work.run), work)


async def stream(
    job: Job = None, rows: Rows = None, *, out: str | Path | None = None, **settings: Unpack[Settings]
) -> AsyncIterator[Outcome]:
    """Outcomes as they settle, in asyncio; whoever closes the iterator drains the run.

    What was settled before is not told again. Outcomes wait in memory for a slow listener. Raises at its end what
    `run` raises.
    """
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def tell(outcome: Outcome | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(waiting.put_nowait, outcome)

    work = Work(call=(job, rows, out), settings={**settings}, hears=tell)
    ending = _begun(work.run)
    ending.add_done_callback(lambda _: waiting.put_nowait(None))
    try:
        while (outcome := await waiting.get()) is not None:
            yield outcome
    finally:
        if not ending.done():
            work.signals.receive(signal.SIGTERM)
        await _until_end(ending, work)


def plan(
    job: Job = None, rows: Rows = None, *, out: str | Path | None = None, **settings: Unpack[Settings]
) -> dict[str, Any]:
    """What `run` would do, as the command `plan --json` tells it: nothing is sent. Raises BatchrunnerError."""
    return Work(call=(job, rows, out), settings={**settings}).plan()


def _begun(do: Callable[[], Got]) -> asyncio.Future[Got]:
    """In a thread of its own: those of the loop are for short errands, and there are few of them."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="batchrunner")
    begun = asyncio.get_running_loop().run_in_executor(pool, do)
    pool.shutdown(wait=False)
    return begun


async def _until_end(ending: asyncio.Future[Got], work: Work) -> Got:
    """What the run gives. A cancellation makes it drain, a second one stop, and goes on when it has ended."""
    try:
        await asyncio.wait([ending])
    except asyncio.CancelledError:
        work.signals.receive(signal.SIGTERM)
        while not ending.done():
            try:
                with CancelScope(shield=True):  # One of anyio's scopes would cancel at every step.
                    await asyncio.wait([ending])
            except asyncio.CancelledError:
                work.signals.receive(signal.SIGTERM)
        ending.exception()  # Seen: the cancellation is what is told.
        raise
    return ending.result()
