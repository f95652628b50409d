"""The columns of a run derived anew from the answers that it has: nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.assemble.ending import HELPS, Items, commands, failures, judge
from batchrunner.assemble.places import copies_of, mirror_of
from batchrunner.assemble.prepare import get_ready, prepare
from batchrunner.assemble.reuse import record_all
from batchrunner.assemble.selection import Selection
from batchrunner.assemble.state import counts
from batchrunner.assemble.table import publish_results
from batchrunner.errors import JobError, RunError
from batchrunner.records import Completion
from batchrunner.spec import parse_max_failed
from batchrunner.store import answers, open_run, read_manifest, totals, verdict_revised, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.assemble.invocation import Invocation
    from batchrunner.assemble.prepare import Prepared
    from batchrunner.expect import Expectation
    from batchrunner.records import Outcome
    from batchrunner.spec import JobSpec
    from batchrunner.store import Commit, Run

REVISED = ("invalid_output", "length")
"""Errors that are our own judgement, which another schema may change."""


def reparse(job: JobSpec, invocation: Invocation, *, environ: Mapping[str, str]) -> dict[str, Any]:
    """Hold a run's answers against what the job now expects, and make the results anew. Gives the summary object.

    An answer that was not valid and is so now succeeds; one that was taken stays so, with empty columns where it is
    not valid any more. Raises JobError, RunError, RunLocked, StoreError.
    """
    copies = copies_of(job.storage, environ, invocation.state_dir)
    ready = get_ready(job, environ=environ, simulate=True, copies=copies)
    expectation = ready.expected.expectation
    if expectation is None and not job.score:
        raise JobError("reparse: expected a job with [expect] schema or [[score]]; there is nothing to derive")
    mirror = mirror_of(invocation.place, job.storage, environ)
    with open_run(invocation.directory, create=False, mode=job.output.mode, mirror=mirror) as run:
        manifest = read_manifest(run.directory / "run.json") or {}
        simulated = bool((manifest.get("call") or {}).get("given", {}).get("simulate"))
        prepared = prepare(ready, remembered=run.commit.input, shard=invocation.shard, simulate=simulated)
        _check_same(run, prepared)
        run.begin()
        invalid = revived = 0
        if expectation is not None:
            invalid = sum(
                1 for one in answers(run.view(), errors=()) if expectation.fault(_completion(one)) is not None
            )
            revived = record_all(run, _revived(run, expectation))
        run.finish()
        state, results = _state(run, prepared, manifest), manifest.get("results")
        left = state["items"]["unfinished"]
        if not left:
            results = publish_results(run, prepared, _selection(manifest), anew=True)
        public = job.public()
        known = {**(manifest.get("job") or {}), "score": public["score"], "params": public["params"]}
        told = {**manifest, **state, "results": results, "expect": ready.expected.told()}
        told["job"] = known
        write_manifest(run.directory / "run.json", told, job.output.mode)
        if mirror:
            mirror.put_manifest()
        return {
            "type": "reparsed",
            "name": job.name,
            "run": run.place,
            "results": None if left else results,
            "expects": expectation is not None,
            "revived": revived,
            "not_valid": invalid,
            "scores": [score.name for score in job.score],
            "notes": [*_notes(prepared, left)],
            "items": told["items"],
        }


def _notes(prepared: Prepared, left: int) -> Iterator[str]:
    if left:
        yield f"{left:,} items are unfinished; the results are made when the run's command has finished them"
    elif prepared.scorer:
        yield from prepared.scorer.notes()


def _check_same(run: Run, prepared: Prepared) -> None:
    """What is expected may have changed, and nothing else: rows are known by their number."""
    commit: Commit = run.commit
    same_input = commit.input.get("fingerprint") == prepared.fingerprint
    if not commit.epoch or not same_input or _question(commit.asked) != _question(prepared.asked):
        raise RunError(
            f"{run.place}: its input or what its job asks has changed since; give the run's command first, then reparse"
        )


def _question(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if not key.startswith("expect.")}


def _revived(run: Run, expectation: Expectation) -> Iterator[Outcome]:
    for outcome in answers(run.view(), errors=REVISED):
        if expectation.fault(_completion(outcome)) is None:
            yield verdict_revised(outcome)


def _completion(outcome: Outcome) -> Completion:
    return Completion(text=outcome.text, finish_reason=outcome.finish_reason)


def _selection(manifest: Mapping[str, Any]) -> Selection:
    taken = dict(manifest.get("selection") or {})
    if taken.get("shards") == 1:
        taken.setdefault("limit", taken.get("stop"))  # Not said by versions before.
    return Selection(**taken)


def _state(run: Run, prepared: Prepared, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """How the run ended, by its outcomes as they are now."""
    selection, spent = _selection(manifest), totals(run.view())
    succeeded, rejected, exhausted = counts(run.ledger, selection.stop)
    items = Items(
        total=selection.count(prepared.checked),
        succeeded=succeeded,
        rejected=rejected,
        exhausted=exhausted,
        length=spent.length,
    )
    known = {"total": items.total, "succeeded": succeeded, "rejected": rejected, "exhausted": exhausted}
    found = {"items": {**known, "unfinished": items.unfinished, "length": items.length}}
    if items.unfinished:
        return found
    call = manifest.get("call") or {}
    allowed = call.get("given", {}).get("max_failed") or "0"
    ending = judge(None, items, parse_max_failed(str(allowed)), left=0, redo=False)
    ready = commands(ending, items, run.place, call.get("command", ""), matrix=bool(prepared.ready.job.matrix))
    return {
        **found,
        "exit": ending.exit,
        "reason": ending.reason,
        "retryable": ending.exit in HELPS,
        "next": next(iter(ready.values()), None),
        "commands": ready,
        "failed_by_type": failures(spent),
    }
