"""What a run would do: from the job, its input and whatever the run has settled; nothing is sent or written."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from batchrunner import store
from batchrunner.assemble.channels import Channels, number
from batchrunner.assemble.epochs import changed_keys, compare, holds
from batchrunner.assemble.estimating import calibrated, guess
from batchrunner.assemble.pilot import settled_items
from batchrunner.assemble.places import bring, copies_of
from batchrunner.assemble.prepare import get_ready, prepare
from batchrunner.assemble.reuse import foreseen
from batchrunner.assemble.selection import select
from batchrunner.assemble.table import carry_of
from batchrunner.errors import BadRow, RunError
from batchrunner.limits.estimate import ENOUGH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batchrunner.assemble.invocation import Invocation
    from batchrunner.assemble.prepare import Prepared
    from batchrunner.assemble.selection import Selection
    from batchrunner.records import Item, Request
    from batchrunner.spec import JobSpec

SAMPLE = 2_000
"""Open items whose requests are made to estimate tokens and cost."""


def plan(job: JobSpec, invocation: Invocation, *, environ: Mapping[str, str], shown: int = 1) -> dict[str, Any]:
    """The plan as a JSON object. Raises JobError with all faults, RunError for a damaged run."""
    view, prepared, selection = _looked_at(job, invocation, environ)
    ready, books = prepared.ready, _books(view, prepared)
    settled = sum(books["skip"][: selection.stop])
    taken = foreseen(view, prepared, selection, books["skip"], invocation)
    for item in taken.waiting():
        books["skip"][item.row] = 1
    open_items = list(islice(selection.of(ready.source.rows(skip=books["skip"], stop=selection.stop)), SAMPLE))
    sample = _Sample(prepared, open_items, view, books["ledger"])
    # Where all open rows were looked at, those that cannot be asked are known and will not be bought.
    bad = len(sample.faults) if len(open_items) < SAMPLE else 0
    total, free = selection.count(prepared.checked), taken.free()
    to_buy = max(0, total - settled - sum(free.values()) - bad)
    estimate = sample.estimate(to_buy)
    return {
        "type": "plan",
        "name": job.name,
        "run": str(invocation.place),
        "provider": ready.provider.name,
        "base_url": ready.endpoint.base_url,
        "keys": [key.label for key in ready.credentials],
        "items": {"total": total, "settled": settled, "to_buy": to_buy, **free},
        "where": _where(prepared),
        "matrix": {"variants": [*job.matrix.choices], "repeats": job.matrix.repeats} if job.matrix else None,
        "bad_rows": {
            "unreadable": prepared.checked.faulty,
            "cannot_be_asked": len(sample.faults),
            "looked_at": len(open_items),
            "first": [*dict.fromkeys(sample.faults)][:10],
        },
        "changed": books["changed"],
        "bought_again": books["bought_again"],
        "bought_again_usd": books["bought_again_usd"],
        "estimate": estimate,
        "time_s": _time_s(prepared, selection.share, estimate),
        "renamed": carry_of(prepared).renamed(prepared.checked),
        "warnings": list(ready.warnings),
        "requests": [_request(request) for request in sample.requests[:shown]],
    }


def _where(prepared: Prepared) -> dict[str, int] | None:
    """How many rows the job's `where` takes, of how many it has looked at."""
    looked_at = prepared.checked.looked_at
    ways = max(1, len(prepared.ready.job.matrix.choices) * prepared.ready.job.matrix.repeats)
    return None if looked_at is None else {"rows": prepared.checked.rows // ways, "looked_at": looked_at}


def _looked_at(
    job: JobSpec, invocation: Invocation, environ: Mapping[str, str]
) -> tuple[store.View | None, Prepared, Selection]:
    """What is settled, the job held against its input, and which of its rows are meant."""
    copies = copies_of(job.storage, environ, invocation.state_dir)
    ready = get_ready(job, environ=environ, simulate=invocation.simulate, copies=copies)
    view, shard = _view(_here(job, invocation, environ)), invocation.shard
    prepared = prepare(ready, remembered=view.commit.input if view else None, shard=shard, simulate=invocation.simulate)
    selection = select(
        ready.source,
        rows=prepared.checked.rows,
        index=shard.index if shard else 0,
        shards=shard.count if shard else 1,
        limit=invocation.limit,
    )
    return view, prepared, selection


def _here(job: JobSpec, invocation: Invocation, environ: Mapping[str, str]) -> Path:
    """The run's directory; of one on an object store a copy."""
    if invocation.address is None:
        return invocation.directory
    try:
        return bring(invocation.place, job.storage, environ).directory
    except RunError:
        return invocation.directory


def _view(directory: Path) -> store.View | None:
    if not (directory / "commits").is_dir():
        return None
    try:
        return store.view_run(directory)
    except RunError:
        if not any((directory / "commits").iterdir()):
            return None
        raise


def _books(view: store.View | None, prepared: Prepared) -> dict[str, Any]:
    """Which rows need no request, and what a changed job would buy again."""
    nothing: dict[str, Any] = {"ledger": None, "changed": [], "bought_again": 0, "bought_again_usd": None}
    if view is None or not view.commit.epoch:
        return {"skip": bytearray(prepared.checked.rows), **nothing}
    if holds(view.commit, prepared):
        return {**nothing, "skip": bytearray(view.ledger.settled_mask()), "ledger": view.ledger}
    matches = compare(view, prepared)
    ledger = store.carried_ledger(matches, prepared.checked.rows)
    changed = changed_keys(view.commit.asked, prepared.asked)
    return {
        "skip": bytearray(ledger.settled_mask()),
        "ledger": ledger,
        "changed": [
            {"key": key, "before": view.commit.asked.get(key), "now": prepared.asked.get(key)} for key in changed
        ],
        "bought_again": matches.changed_items if changed else 0,
        "bought_again_usd": matches.changed_cost_usd if changed else None,
    }


class _Sample:
    """Requests of the first open items, and what they would use."""

    def __init__(
        self, prepared: Prepared, items: list[Item], view: store.View | None, ledger: store.Ledger | None
    ) -> None:
        self.prepared, self.view, self.faults = prepared, view, list[str]()
        self.requests = list(self._requests(items))
        self.pilot = settled_items(view, ledger, prepared) if view and ledger else []

    def _requests(self, items: list[Item]) -> Iterator[Request]:
        for item in items:
            try:
                yield self.prepared.request(item)
            except BadRow as error:
                where = f"{item.file} line {item.line}" if item.line is not None else f"{item.file} row {item.row}"
                self.faults.append(f"{where}: {error}")

    def requests_per_item(self) -> float:
        """More than one where items have turns."""
        return sum(max(1, request.turns) for request in self.requests) / max(1, len(self.requests)) or 1.0

    def estimate(self, to_buy: int) -> dict[str, Any]:
        """Tokens and cost of `to_buy` items: what is expected, and from what to what."""
        prices = self.prepared.ready.prices
        asked = {"requests": round(to_buy * self.requests_per_item()) if self.requests else 0}
        found = calibrated(self.requests, to_buy, pilot=self.pilot, prices=prices) if self.requests else None
        return asked | (found or guess(self.requests, to_buy, known=self._known(), prices=prices))

    def _known(self) -> store.Quantiles | None:
        """Tokens of the run's earlier answers, where they were to other requests than those of now."""
        if self.view is None or not self.requests or self.view.outcomes_recorded < ENOUGH:
            return None
        return store.totals(self.view).completion_quantiles


def _time_s(prepared: Prepared, share: float, estimate: Mapping[str, Any]) -> float | None:
    """Seconds at the limits; None where no limit is set."""
    ready = prepared.ready
    channels = Channels(
        job=ready.job, provider=ready.provider, endpoint=ready.endpoint, credentials=ready.credentials,
        asks=prepared.asker, share=share,
    )  # fmt: skip
    keys = len(ready.credentials)
    times = []
    if requests := channels.requests_per_minute():
        times.append(estimate["requests"] / (requests * share * keys) * 60)
    if tokens := number(ready.job.limits.tokens_per_minute):
        used = estimate["prompt_tokens"] + estimate["completion_tokens"]
        times.append(used / (tokens * share * keys) * 60)
    return max(times) if times else None


def _request(request: Request) -> dict[str, Any]:
    return {"path": request.path, "body": request.body.decode(), "warnings": list(request.warnings)}
