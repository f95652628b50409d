"""One invocation of a job, from the command line's words to the summary."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from batchrunner import templates
from batchrunner.assemble.channels import Channels
from batchrunner.assemble.ending import Items, Told, judge, summary
from batchrunner.assemble.epochs import take_up
from batchrunner.assemble.execute import SIGNALS, Execution, Manner
from batchrunner.assemble.feed import InputFeed
from batchrunner.assemble.prepare import Prepared, get_ready, prepare
from batchrunner.assemble.selection import Selection, select
from batchrunner.assemble.state import Chronicle
from batchrunner.assemble.table import RESULTS, carry_of, publish_results
from batchrunner.credentials import Redactor
from batchrunner.errors import JobError, RunError, RunLocked, StoreError
from batchrunner.events import Counts, Tally
from batchrunner.limits import Budget, Estimator
from batchrunner.spec import NO_FAILURES
from batchrunner.store import check_target, lock_is_held, open_run, totals, view_run
from batchrunner.telemetry import run_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batchrunner.assemble.prepare import Ready
    from batchrunner.events import Progress
    from batchrunner.records import Outcome
    from batchrunner.spec import JobSpec, MaxFailed, Shard
    from batchrunner.store import Ledger, Run, Totals
    from batchrunner.telemetry import Emit


LARGE_BYTES = 50_000_000
"""Of input: looking through it takes long enough to say so."""


class Display(Protocol):
    """What `console.Display` is to an invocation."""

    period_s: float

    def began(self, line: str, facts: dict[str, Any]) -> None: ...
    def progress(self, now: Progress) -> None: ...
    def say(self, line: str) -> None: ...
    def ended(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """Items to buy again, and the job that says what is sent this time."""

    ids: frozenset[str]
    changed: JobSpec | None = None
    changes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What a command line says beyond the job."""

    directory: Path
    shard: Shard | None = None
    limit: int | None = None
    max_failed: MaxFailed = NO_FAILURES
    strict: bool = False
    fresh: bool = False
    accept_change: bool = False
    wait_lock_s: float = 0.0
    grace_s: float = 25.0
    patient: bool = False
    simulate: bool = False
    redo: Redo | None = None
    command: str = "batchrunner run"
    ways_out: tuple[str, ...] = ()
    """What to do when settled items would be bought again, ready to be pasted."""
    call: Mapping[str, Any] = field(default_factory=dict)


def invoke(job: JobSpec, invocation: Invocation, *, display: Display, environ: Mapping[str, str]) -> dict[str, Any]:
    """Start or resume a job's run and bring it to an end. Returns the summary object.

    Raises BatchrunnerError for whatever keeps it from starting; nothing has been sent then.
    """
    directory = invocation.directory
    stdin = job.input.path == "-"
    prepared = None
    if not (directory / "commits").exists() and not stdin:
        prepared = _prepared(job, invocation, environ, display)
    if invocation.wait_lock_s and lock_is_held(directory / "lock"):
        display.say(f"waiting for the process that holds {directory}, {invocation.wait_lock_s:g} s at most")
    if invocation.fresh and (directory / "commits").exists():
        _begin_anew(job, invocation, environ, display)
    with open_run(directory, wait_s=invocation.wait_lock_s, mode=job.output.mode) as held:
        prepared = prepared or _prepared(job, invocation, environ, display, remembered=held.commit.input)
        return _held(held, prepared, invocation, display)


def _begin_anew(job: JobSpec, invocation: Invocation, environ: Mapping[str, str], display: Display) -> None:
    """`--fresh`: once the job has been found sound, put the old run aside while nobody else can take it."""
    if job.input.path != "-":
        _prepared(job, invocation, environ, display)
    try:
        with open_run(invocation.directory, wait_s=invocation.wait_lock_s, mode=job.output.mode):
            _put_aside(invocation.directory)
    except RunLocked:
        raise
    except RunError:
        _put_aside(invocation.directory)  # A damaged run is what --fresh is recommended for.


def _prepared(
    job: JobSpec,
    invocation: Invocation,
    environ: Mapping[str, str],
    display: Display,
    *,
    remembered: Mapping[str, Any] | None = None,
) -> Prepared:
    spool = invocation.directory / "stdin.jsonl"
    ready = get_ready(job, environ=environ, simulate=invocation.simulate, spool=spool)
    size = sum(path.stat().st_size for path in ready.source.files)
    if size >= LARGE_BYTES:
        display.say(f"looking through {size / 1e6:,.0f} MB of input")
    prepared = prepare(ready, remembered=remembered, shard=invocation.shard)
    carry_of(prepared).schema(prepared.checked)  # A column to keep that is not there is a fault now, not at the end.
    if invocation.strict:
        _refuse_bad_rows(prepared)
    return prepared


def _refuse_bad_rows(prepared: Prepared) -> None:
    """With --strict, a row that cannot be asked is a fault of the input."""
    faults = []
    for item in prepared.ready.source.rows():
        fault = prepared.fault_of(item)
        if fault is not None:
            where = f"{item.file} line {item.line}" if item.line is not None else f"{item.file} row {item.row}"
            faults.append(f"{where}: {fault}")
        if len(faults) == 10:
            break
    if faults:
        raise JobError(*faults)


def _put_aside(directory: Path) -> None:
    """`--fresh`: rename the old run to DIR.1, or the next number that is free; nothing is deleted."""
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    directory.rename(aside)


def _held(run: Run, prepared: Prepared, invocation: Invocation, display: Display) -> dict[str, Any]:
    """The invocation once the run is ours."""
    ready = prepared.ready
    redactor = Redactor(credential.key for credential in ready.credentials)
    with ExitStack() as stack:
        emit = stack.enter_context(run_log(run.directory / "log.jsonl", redact=redactor))
        check_target(run.directory / RESULTS, run_id=run.run_id)
        take_up(run, prepared, accept_change=invocation.accept_change, ways_out=invocation.ways_out)
        spent = run.spent()
        selection = _selection(prepared, invocation)
        before = _items(run.ledger, prepared, selection, spent)
        settled = bytes(run.ledger.settled_mask())[: selection.stop].count(1)
        chronicle = Chronicle(run=run, job=ready.job, call=dict(invocation.call), selection=selection)
        _announce(display, run, before, settled, chronicle, ready)
        stack.callback(display.ended)
        emit("run_started", settled=settled, total=before.total, **chronicle.recovered())
        execution = Execution(
            prepared=prepared,
            run=run,
            feed=_feed(run.ledger, prepared, selection, invocation.redo),
            channels=_channels(prepared, selection),
            tally=Tally(total=before.total, before=_counts(before, settled), clock=time.monotonic),
            manner=Manner(grace_s=invocation.grace_s, patient=invocation.patient, simulate=invocation.simulate),
            display=display,
            emit=emit,
            redactor=redactor,
            heartbeat=chronicle.beat,
            budget=_budget(ready, selection, spent),
            estimator=_estimator(spent),
            resend=_resend(prepared, invocation.redo),
            sent_changes=invocation.redo.changes or None if invocation.redo else None,
        )
        execution.tally.listen(lambda outcome: _log_failure(emit, outcome))
        cause: BaseException | None = chronicle.stopped_before(ready.job) if not invocation.redo else None
        with _unhurried():
            if cause is None:
                cause = anyio.run(execution, backend_options={"use_uvloop": True})
            return _conclude(execution, cause, invocation, selection, chronicle, settled)


@contextmanager
def _unhurried() -> Iterator[None]:
    """While what was bought is put in order, the first signal is let pass; the next one does what it always does.

    The event loop hears signals itself while it runs; this is for the moments around it.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def let_pass(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, let_pass)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _selection(prepared: Prepared, invocation: Invocation) -> Selection:
    shard = invocation.shard
    return select(
        prepared.ready.source,
        rows=prepared.checked.rows,
        index=shard.index if shard else 0,
        shards=shard.count if shard else 1,
        limit=invocation.limit,
    )


def _items(ledger: Ledger, prepared: Prepared, selection: Selection, totals: Totals) -> Items:
    codes = ledger.codes if selection.stop is None else ledger.codes[: selection.stop]
    succeeded, rejected, exhausted, bad = (codes.count(code) for code in range(1, 5))
    return Items(
        total=selection.count(prepared.checked),
        succeeded=succeeded,
        rejected=rejected + bad,
        exhausted=exhausted,
        length=totals.length,
    )


def _counts(items: Items, settled: int) -> Counts:
    """What need not be done again; bad rows are judged anew."""
    rejected = settled - items.succeeded
    return Counts(succeeded=items.succeeded, rejected=rejected, exhausted=items.exhausted, length=items.length)


def _feed(ledger: Ledger, prepared: Prepared, selection: Selection, redo: Redo | None) -> InputFeed:
    if redo is None:
        skip = bytearray(ledger.settled_mask())
    else:
        skip = bytearray(b"\1") * ledger.rows
        for item in prepared.ready.source.rows(stop=selection.stop):
            skip[item.row] = item.item_id not in redo.ids
    return InputFeed(prepared.ready.source, selection, skip=skip)


def _channels(prepared: Prepared, selection: Selection) -> Channels:
    ready = prepared.ready
    return Channels(
        job=ready.job,
        provider=ready.provider,
        endpoint=ready.endpoint,
        credentials=ready.credentials,
        asks=prepared.asker,
        share=selection.share,
    )


def _budget(ready: Ready, selection: Selection, totals: Totals) -> Budget:
    caps, share = ready.job.budget, selection.share
    spent = (
        totals.prompt_tokens,
        totals.completion_tokens,
        totals.failed_prompt_tokens,
        totals.failed_completion_tokens,
    )
    return Budget(
        max_cost_usd=None if caps.max_cost_usd is None else caps.max_cost_usd * share,
        max_tokens=None if caps.max_tokens_total is None else int(caps.max_tokens_total * share),
        spent_usd=totals.cost_usd or 0.0,
        spent_tokens=sum(tokens or 0 for tokens in spent),
    )


def _estimator(totals: Totals) -> Estimator:
    """Calibrated by what the run has settled before."""
    known = totals.completion_quantiles
    if known is None:
        return Estimator()
    shares = {known.p50: 0.5, known.p90: 0.4, known.p95: 0.05, known.p99: 0.05}
    return Estimator({int(tokens): max(1, int(share * totals.outcomes)) for tokens, share in shares.items()})


def _resend(prepared: Prepared, redo: Redo | None) -> Any:
    if redo is None or redo.changed is None:
        return None
    job = redo.changed
    return templates.compile_request(job.request, params=job.params, base=job.base, columns=prepared.checked.columns)


def _announce(display: Display, run: Run, items: Items, settled: int, chronicle: Chronicle, ready: Ready) -> None:
    directory = run.directory
    line = (
        f"resuming {directory}: {settled:,} of {items.total:,} settled" if chronicle.resumed else f"new run {directory}"
    )
    display.began(line, {"run": str(directory), "settled": settled, "total": items.total})
    empty = () if items.total else ("the input has no rows",)
    for warning in (*empty, *ready.warnings, *chronicle.notes()):
        display.say(warning)


def _log_failure(emit: Emit, outcome: Outcome) -> None:
    if outcome.status != "succeeded":
        emit(
            f"item_{outcome.status}",
            item_id=outcome.item_id,
            row=outcome.row,
            error_type=outcome.error_type,
            error=outcome.error,
            attempts=outcome.attempts,
        )


def _conclude(
    execution: Execution,
    cause: BaseException | None,
    invocation: Invocation,
    selection: Selection,
    chronicle: Chronicle,
    settled: int,
) -> dict[str, Any]:
    """Judge, publish the results when every item has its outcome, and write it all down."""
    run, prepared = execution.run, execution.prepared
    # Also what is in no part, where a full disk kept it from becoming one.
    spent = totals(view_run(run.directory))
    items = _items(run.ledger, prepared, selection, spent)
    results = None
    if not items.unfinished and not isinstance(cause, StoreError):
        whole = Selection() if selection.shards == 1 and not run.ledger.unfinished else selection
        try:
            results = publish_results(run, prepared, whole)
        except StoreError as error:
            cause = error
    lanes = execution.lanes()
    limits = [lane.requests_per_minute for lane in lanes if lane.requests_per_minute]
    left = max(0, execution.feed.wanted - execution.tally.now.settled)
    ending = judge(cause, items, invocation.max_failed, left=left, redo=invocation.redo is not None)
    told = Told(
        job=prepared.ready.job,
        run=run.directory,
        results=results,
        items=items,
        totals=spent,
        tally=execution.tally,
        settled_before=settled,
        in_flight_given_up=execution.given_up(),
        throttled=sum(lane.throttled_count for lane in lanes),
        limit_per_minute=sum(limits) if limits else None,
        command=invocation.command,
    )
    found = summary(ending, told)
    try:
        chronicle.end(found, draining=cause is not None, left=left)
    except StoreError as error:
        execution.display.say(str(error))
    execution.emit("run_ended", exit=ending.exit, reason=ending.reason, items=found["items"], now=found["now"])
    return found
