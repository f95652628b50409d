"""An invocation once its run is ours: from the books to the summary."""

from __future__ import annotations

import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from batchrunner.assemble.channels import Channels
from batchrunner.assemble.ending import FINAL, Items, Told, judge, of_nothing, summary
from batchrunner.assemble.epochs import take_up
from batchrunner.assemble.execute import MOST_LANES, Execution, Manner
from batchrunner.assemble.expecting import compiled
from batchrunner.assemble.feed import InputFeed, failed_sessions
from batchrunner.assemble.reuse import TakenOver, take_over, together
from batchrunner.assemble.selection import Selection, select
from batchrunner.assemble.state import Chronicle
from batchrunner.assemble.table import publish_results
from batchrunner.credentials import Redactor, Secret
from batchrunner.errors import StoreError
from batchrunner.events import Counts, Tally
from batchrunner.limits import Budget, Estimator
from batchrunner.runner import Sessions
from batchrunner.spec import metrics_file
from batchrunner.store import RESULTS, Patience, begun, check_target, totals, view_run
from batchrunner.telemetry import About, MetricsFile, exporting, run_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batchrunner.assemble.invocation import Invocation, Redo
    from batchrunner.assemble.prepare import Prepared, Ready
    from batchrunner.events import Display
    from batchrunner.records import Outcome
    from batchrunner.spec import JobSpec
    from batchrunner.store import Ledger, Run, Totals
    from batchrunner.telemetry import Attempts, Emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Through whom an invocation tells how it goes."""

    display: Display
    emit: Emit
    redactor: Redactor
    attempts: Attempts | None

    def warn(self, event: str, trouble: str) -> None:
        """Say what does not work beside the run, and log it."""
        self.display.say(self.redactor(trouble))
        self.emit(event, error=trouble)


def carry_out(run: Run, prepared: Prepared, invocation: Invocation, display: Display) -> dict[str, Any]:
    """The invocation once the run is ours."""
    ready = prepared.ready
    with ExitStack() as stack:
        voices = _voices(run, ready, display, stack)
        check_target(run.directory / RESULTS, run_id=run.run_id, overwrite=invocation.overwrite)
        take_up(run, prepared, accept_change=invocation.accept_change, ways_out=invocation.ways_out)
        selection = _selection(prepared, invocation)
        taken = _taken(run, prepared, selection, invocation)
        spent = run.spent()
        before = _items(run.ledger, prepared, selection, spent)
        settled = bytes(run.ledger.settled_mask())[: selection.stop].count(1)
        chronicle = Chronicle(
            run=run,
            job=ready.job,
            call=dict(invocation.call),
            selection=selection,
            spent=spent,
            told=_metrics(ready.job, invocation, voices),
            expected=ready.expected.told(),
        )
        _announce(display, run, before, settled, chronicle, prepared)
        for line in taken.lines():
            display.say(line)
        stack.callback(display.ended)
        voices.emit("run_started", settled=settled, total=before.total, **taken.free(), **chronicle.recovered())
        tally = Tally(total=before.total, before=_counts(before, settled), clock=time.monotonic)
        tally.listen(lambda outcome: _log_failure(voices.emit, outcome))
        if invocation.hears is not None:
            tally.listen(invocation.hears)
        execution = _execution(chronicle, prepared, invocation, tally, voices, taken)
        cause: BaseException | None = chronicle.stopped_before(ready.job) if not invocation.redo else None
        with _bugs_logged(voices.emit):
            if cause is None:
                cause = anyio.run(execution, backend_options={"use_uvloop": True})
            found = _conclude(execution, cause, invocation, chronicle, settled)
        if voices.attempts is not None:
            voices.attempts.concluded(found)
        return found


def _voices(run: Run, ready: Ready, display: Display, stack: ExitStack) -> Voices:
    """Open until `stack` closes: the log for longest, since the others may yet have something to say."""
    grants = [credential.grant for credential in ready.credentials]
    redactor = Redactor(credential.key for credential in ready.credentials)
    redactor.learn(*(secret for grant in grants if grant is not None for secret in grant.secrets))
    emit = stack.enter_context(run_log(run.directory / "log.jsonl", redact=redactor, tell=display.say))
    voices = Voices(display=display, emit=emit, redactor=redactor, attempts=None)
    if ready.collector is None:
        return voices
    redactor.learn(*map(Secret, ready.collector.secrets))
    about = About(
        name=ready.job.name,
        run=run.place,
        provider=ready.provider.name,
        base_url=ready.endpoint.base_url,
        labels=ready.job.labels,
        sample=ready.job.telemetry.sample,
    )
    exported = exporting(ready.collector, about, tell=lambda trouble: voices.warn("telemetry_failed", trouble))
    return replace(voices, attempts=stack.enter_context(exported))


def _execution(
    chronicle: Chronicle, prepared: Prepared, invocation: Invocation, tally: Tally, voices: Voices, taken: TakenOver
) -> Execution:
    run, ready, selection = chronicle.run, prepared.ready, chronicle.selection
    skip = _skip(run.ledger, prepared, selection, invocation.redo)
    # The bytes of a shard's `skip` do not tell which rows are its own; its ids to redo all are.
    wanted = tally.total - tally.settled_before if invocation.redo is None else skip[: selection.stop].count(0)
    for item in taken.waiting():
        skip[item.row] = 1
    return Execution(
        prepared=prepared,
        run=run,
        followers=taken.followers,
        feed=InputFeed(ready.source, selection, skip=skip, wanted=wanted),
        sessions=Sessions(prepared.session_of, failed_sessions(prepared, run.ledger, skip)),
        begun=begun(run.view()) if prepared.asker.has_turns or ready.expected.expectation else {},
        channels=_channels(prepared, selection, voices.redactor, invocation),
        tally=tally,
        manner=Manner(
            grace_s=invocation.grace_s,
            patient=invocation.patient,
            disk_wait_s=invocation.disk_wait_s,
            simulate=invocation.simulate,
        ),
        signals=invocation.signals,
        display=voices.display,
        emit=voices.emit,
        redactor=voices.redactor,
        heartbeat=chronicle.beat,
        budget=_budget(ready, selection, chronicle.spent),
        estimator=_estimator(chronicle.spent),
        attempts=voices.attempts,
        resend=_resend(prepared, invocation.redo),
        sent_changes=invocation.redo.changes or None if invocation.redo else None,
    )


@contextmanager
def _bugs_logged(emit: Emit) -> Iterator[None]:
    """A bug's traceback goes into the run's log, where a night's run leaves nothing else."""
    try:
        yield
    except Exception:
        emit("bug_met", traceback=traceback.format_exc())
        raise


def _metrics(job: JobSpec, invocation: Invocation, voices: Voices) -> Callable[[Mapping[str, Any]], None]:
    """Puts a manifest where the job wants its metrics, if anywhere."""
    path = metrics_file(job, invocation.shard)
    if path is None:
        return lambda _: None
    return MetricsFile(path, tell=lambda trouble: voices.warn("metrics_not_written", trouble)).write


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
        behind=sum(failure.items for failure in totals.failures if failure.error_type == "session"),
    )


def _counts(items: Items, settled: int) -> Counts:
    """What need not be done again; bad rows are judged anew."""
    rejected = settled - items.succeeded
    return Counts(succeeded=items.succeeded, rejected=rejected, exhausted=items.exhausted, length=items.length)


def _taken(run: Run, prepared: Prepared, selection: Selection, invocation: Invocation) -> TakenOver:
    """What need not be bought. Nothing is taken over for what is bought again, but that is bought once for all."""
    redo = invocation.redo
    if redo is None:
        return take_over(run, prepared, selection, simulate=invocation.simulate)
    if not prepared.ready.job.reuse.dedupe:
        return TakenOver()
    return together(prepared, selection, _skip(run.ledger, prepared, selection, redo), _resend(prepared, redo))


def _skip(ledger: Ledger, prepared: Prepared, selection: Selection, redo: Redo | None) -> bytearray:
    """By row: whether this invocation passes it over."""
    if redo is None:
        return bytearray(ledger.settled_mask())
    skip = bytearray(b"\1") * ledger.rows
    for item in prepared.ready.source.rows(stop=selection.stop):
        skip[item.row] = item.item_id not in redo.ids
    return skip


def _channels(prepared: Prepared, selection: Selection, redactor: Redactor, invocation: Invocation) -> Channels:
    ready = prepared.ready
    return Channels(
        job=ready.job,
        provider=ready.provider,
        endpoint=ready.endpoint,
        credentials=ready.credentials,
        asks=prepared.asker,
        share=selection.share,
        lease=invocation.lease,
        simulate=invocation.simulate,
        learn=redactor.learn,
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
    return compiled(redo.changed, prepared.checked.columns, prepared.ready.expected)


def _announce(display: Display, run: Run, items: Items, settled: int, chronicle: Chronicle, prepared: Prepared) -> None:
    line = f"resuming {run.place}: {settled:,} of {items.total:,} settled"
    display.began(
        line if chronicle.resumed else f"new run {run.place}",
        {"run": run.place, "settled": settled, "total": items.total},
    )
    left_out = prepared.checked.looked_at
    nothing = f"input.where takes none of the {left_out:,} rows" if left_out else "the input has no rows"
    empty = () if items.total else (nothing,)
    for warning in (*empty, *prepared.ready.warnings, *chronicle.notes()):
        display.say(warning)


def _log_failure(emit: Emit, outcome: Outcome) -> None:
    if outcome.status != "succeeded":
        emit(
            "item_rejected" if outcome.status == "rejected" else "item_exhausted",
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
    chronicle: Chronicle,
    settled: int,
) -> dict[str, Any]:
    """Judge, publish the results when every item has its outcome, and write it all down."""
    run, prepared, selection = execution.run, execution.prepared, chronicle.selection
    # Also what is in no part, where a full disk kept it from becoming one.
    spent = totals(view_run(run.directory))
    items = _items(run.ledger, prepared, selection, spent)
    results = None
    if not items.unfinished and not isinstance(cause, FINAL):
        try:
            results = _published(execution, selection, invocation)
            for note in prepared.scorer.notes() if prepared.scorer else ():
                execution.display.say(note)
        except FINAL as error:
            cause = error
    lanes = execution.lanes()
    limits = [lane.requests_per_minute for lane in lanes if lane.requests_per_minute]
    left = max(0, execution.feed.wanted - execution.tally.now.settled)
    ending = judge(cause, items, invocation.max_failed, left=left, redo=invocation.redo is not None)
    if not prepared.checked.rows:
        ending = of_nothing(ending, invocation.skip_exit_code)
    told = Told(
        job=prepared.ready.job,
        run=run.place,
        results=results,
        items=items,
        totals=spent,
        tally=execution.tally,
        settled_before=settled,
        in_flight_given_up=execution.given_up(),
        left_before=chronicle.left_before,
        throttled=sum(lane.throttled_count for lane in lanes),
        limit_per_minute=sum(limits) if limits else None,
        command=invocation.command,
        lanes=[lane.facts() for lane in lanes[:MOST_LANES]],
    )
    found = summary(ending, told)
    try:
        chronicle.end(found, draining=cause is not None, left=left)
    except StoreError as error:
        execution.display.say(str(error))
    execution.emit("run_ended", exit=ending.exit, reason=ending.reason, items=found["items"], now=found["now"])
    return found


def _published(execution: Execution, selection: Selection, invocation: Invocation) -> str:
    """The results in place; a full disk is waited for. Raises StoreError."""
    patience = Patience(invocation.disk_wait_s, time.monotonic)
    while True:
        try:
            return publish_results(execution.run, execution.prepared, selection, overwrite=invocation.overwrite)
        except StoreError as error:
            known = patience.tried
            if invocation.signals.heard or not patience.lasts(error):
                raise
            if not known:
                execution.display.say(f"{error}; room is waited for, {invocation.disk_wait_s:g} s at most")
            patience.rest()
