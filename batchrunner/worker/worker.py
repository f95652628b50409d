"""One item's way to its outcome: prepared, attempted, attempted again, settled."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow, ProviderRefused, ProviderUnavailable, RequestError
from batchrunner.limits.budget import NOTHING, Reservation
from batchrunner.providers import conversation
from batchrunner.records import Outcome, Usage
from batchrunner.retry import MOST_UNREADABLE, Backoff, unreadable
from batchrunner.worker.outcomes import Outcomes
from batchrunner.worker.requests import WRONG, Requests
from batchrunner.worker.trip import Answered, Later, Trip, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.limits import Budget, Estimator
    from batchrunner.providers.base import Provider
    from batchrunner.records import Begun, Item
    from batchrunner.stack import Answer, Call, Channel
    from batchrunner.worker.trip import Asks, Expects, Pricing, Settings

LEAST_S = 0.05
"""Between two attempts for an item that nobody asked to wait."""
MOST_NOT_FOUND = 2
"""A row's own agent or model that was not found this often is not asked again."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """Prepares trips and takes them one attempt further. Keeps what must be known across items, and no task."""

    provider: Provider
    asks: Asks
    call: Call
    backoff: Backoff
    prices: Pricing
    estimator: Estimator
    budget: Budget
    settings: Settings
    expect: Expects | None = None
    resend: Asks | None = None
    """Asks instead of `asks` what is sent; the item's request key stays that of `asks`."""
    begun: Mapping[str, Begun] = field(default_factory=dict)
    """By item: conversations to go on with."""
    now_us: Callable[[], int] = lambda: time.time_ns() // 1_000
    _requests: Requests = field(init=False)
    _outcomes: Outcomes = field(init=False)
    _not_found: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._requests = Requests(
            provider=self.provider, asks=self.asks, resend=self.resend, begun=self.begun, settings=self.settings
        )
        self._outcomes = Outcomes(
            provider=self.provider.name,
            settings=self.settings,
            prices=self.prices,
            changes=self._requests.changes,
            now_us=self.now_us,
        )

    def start(self, item: Item) -> Trip:
        return Trip(item=item, began_at=monotonic(), started_at=self.now_us())

    def prepare(self, trip: Trip, *, counted: bool = True) -> Outcome | None:
        """Make the trip's request and reserve for it. An outcome means: nothing is to be sent.

        `counted`: its lane keeps to so many tokens a minute, and wants to know about how many these are.
        """
        try:
            self._requests.make(trip)
        except BadRow as error:
            return self._outcomes.refused(trip, "bad_row", str(error))
        if trip.error is not None and self._left_s(trip) <= 0:
            return self._outcomes.failed(trip, "exhausted", trip.error, str(trip.error))
        if trip.session_fault is not None:
            return self._outcomes.refused(trip, "session", trip.session_fault)
        if trip.own and self._not_found.get(trip.own, 0) >= MOST_NOT_FOUND:
            why = f"{trip.own} was not found {MOST_NOT_FOUND} times; not asked again in this run"
            return self._outcomes.refused(trip, "not_found", why)
        reserved = self._reservation(trip) if counted or self.budget.capped else NOTHING
        if reserved is None:
            model = trip.request.model if trip.request else None
            why = f"the price of model {model!r} is not known, so budget.max_cost_usd cannot be kept"
            return self._outcomes.refused(trip, "bad_row", why)
        trip.reserved = reserved
        return None

    def _reservation(self, trip: Trip) -> Reservation | None:
        """What to book for the next attempt; None where a cap on money meets an unknown price."""
        assert trip.request is not None
        estimate = self.estimator.estimate(trip.request)
        usage = Usage(prompt_tokens=estimate.prompt_tokens, completion_tokens=estimate.completion_tokens)
        if self.budget.max_cost_usd is None:
            return Reservation(tokens=estimate.tokens)
        cost = self.prices.cost(trip.request.model, usage)
        return None if cost is None else Reservation(cost_usd=cost, tokens=estimate.tokens)

    async def attempt(self, trip: Trip, channel: Channel) -> Outcome | Answered | Later | Unfinished:
        """Take the trip over the wire once. Every failure of the item is data; only cancellation escapes."""
        assert trip.request is not None
        trip.attempts += 1
        was_down = channel.lane.breaker.open
        spent = NOTHING
        try:
            deadline = trip.began_at + self.settings.item_s
            answer = await self.call(channel, trip.request, item_id=trip.item.item_id, deadline=deadline)
            spent = self._learn(trip, answer)
            return self._answered(trip, answer)
        except RequestError as error:
            spent = self._book_failure(trip, error, was_down=was_down or channel.lane.breaker.open)
            return self._judge(trip, error, channel)
        finally:
            channel.lane.settle(reserved=trip.reserved.tokens, used=spent.tokens)
            self.budget.settle(trip.reserved, cost_usd=spent.cost_usd, tokens=spent.tokens)

    def _learn(self, trip: Trip, answer: Answer) -> Reservation:
        usage, request = answer.completion.usage, trip.request
        assert request is not None
        if trip.reserved is not NOTHING:
            self.estimator.learn(request, usage)
        tokens = usage.total_tokens
        if not self.budget.capped:
            return NOTHING if tokens is None else Reservation(tokens=tokens)
        # A reply that does not say what it used is booked as it was estimated, so that a cap still holds.
        cost = self.prices.cost(answer.completion.model or request.model, usage, asked=request.model)
        return Reservation(
            cost_usd=trip.reserved.cost_usd if cost is None else cost,
            tokens=trip.reserved.tokens if tokens is None else tokens,
        )

    def _book_failure(self, trip: Trip, error: RequestError, *, was_down: bool) -> Reservation:
        if error.went_out:
            trip.possibly_billed += 1
        trip.unreadable += unreadable(error)
        trip.retry = error.error_type != "rate_limit" and error.scope != "machine" and not was_down
        trip.failures += trip.retry
        trip.attempts -= error.scope == "machine"
        if error.prompt_tokens is None and error.completion_tokens is None:
            return NOTHING
        trip.failed_prompt_tokens = (trip.failed_prompt_tokens or 0) + (error.prompt_tokens or 0)
        trip.failed_completion_tokens = (trip.failed_completion_tokens or 0) + (error.completion_tokens or 0)
        usage = Usage(prompt_tokens=error.prompt_tokens or 0, completion_tokens=error.completion_tokens or 0)
        cost = self.prices.cost(trip.request.model if trip.request else None, usage)
        return Reservation(cost_usd=cost or 0.0, tokens=(error.prompt_tokens or 0) + (error.completion_tokens or 0))

    def _judge(self, trip: Trip, error: RequestError, channel: Channel) -> Outcome | Later | Unfinished:
        """What a failed attempt means for its item, its lane and the run."""
        message = str(error)
        if error.verdict == "abort" and error.scope == "agent" and trip.own:
            self._not_found[trip.own] = self._not_found.get(trip.own, 0) + 1
            return self._outcomes.failed(trip, "rejected", error, message)
        if error.verdict == "abort":
            return Unfinished(ends=ProviderRefused(f"{channel.label}: {message}"))
        if error.verdict == "defer":
            back = f"{message}; asks to come back in {error.wait_s:,.0f} s" if error.wait_s else message
            return Unfinished(ends=ProviderUnavailable(f"{channel.label}: {back}"), lane_only=True)
        if error.verdict == "reject":
            outcome = self._outcomes.failed(trip, "rejected", error, message)
            return _unmended(outcome, trip.wrong[-1]) if trip.wrong else outcome
        return self._again(trip, error, message, channel)

    def _again(self, trip: Trip, error: RequestError, message: str, channel: Channel) -> Outcome | Later:
        if error.without is not None and self._requests.drop(trip, error.without):
            return Later(wait_s=error.wait_s or 0.0, least_s=error.wait_s or 0.0)
        if error.without == "stream_options":
            return self._outcomes.failed(trip, "rejected", error, message)
        patience = channel.lane.patience(error)
        wait_s = self.backoff.wait_s(error, failures=trip.failures, unreadable=trip.unreadable, patience=patience)
        left_s = self._left_s(trip)
        if channel.lane.breaker.open and wait_s is None and trip.unreadable <= MOST_UNREADABLE:
            wait_s = 0.0  # The lane is down, not the item: it waits for the probe.
        if wait_s is None or max(wait_s, channel.lane.paused_s()) > left_s:
            return self._outcomes.failed(trip, "exhausted", error, message)
        # Not the error itself: its traceback keeps the reply for as long as the item waits.
        trip.error = RequestError(message, verdict="retry", error_type=error.error_type, status=error.status)
        return Later(wait_s=wait_s, least_s=wait_s if error.wait_s is not None else min(wait_s, LEAST_S))

    def _left_s(self, trip: Trip) -> float:
        """Until the item's deadline."""
        return trip.began_at + self.settings.item_s - monotonic()

    def _answered(self, trip: Trip, answer: Answer) -> Outcome | Answered:
        """The item's outcome, or an answer that another is to follow."""
        request = trip.request
        assert request is not None
        if not request.turns:
            return self._settled(trip, answer)
        said = conversation.answer_of(answer.completion)
        trip.answers += (said,)
        if len(trip.answers) == request.turns:
            return self._settled(trip, answer)
        return self._keep(trip, self._outcomes.answered(trip, answer, "unfinished"), said)

    def _settled(self, trip: Trip, answer: Answer) -> Outcome | Answered:
        """The outcome of an item whose last answer this is, unless it has to be mended."""
        wrong = None if self.expect is None else self.expect.fault(answer.completion)
        if wrong is None:
            return self._outcomes.answered(trip, answer, "succeeded")
        if wrong.error_type == "invalid_output" and self._can_mend(trip):
            return self._mend(trip, answer, wrong.said)
        outcome = self._outcomes.answered(trip, answer, "succeeded")
        return dataclasses.replace(outcome, status="rejected", error_type=wrong.error_type, error=wrong.said)

    def _can_mend(self, trip: Trip) -> bool:
        return len(trip.wrong) < self.settings.repairs and self._left_s(trip) > 0

    def _mend(self, trip: Trip, answer: Answer, why: str) -> Answered:
        """Ask for a better answer. This one was billed, but does not count as the item's own."""
        outcome, usage = self._outcomes.answered(trip, answer, "unfinished"), answer.completion.usage
        outcome = dataclasses.replace(
            outcome,
            prompt_tokens=0,
            completion_tokens=0,
            total_tokens=0,
            cached_tokens=0,
            reasoning_tokens=0,
            failed_prompt_tokens=_sum(trip.failed_prompt_tokens, usage.prompt_tokens),
            failed_completion_tokens=_sum(trip.failed_completion_tokens, usage.completion_tokens),
            error_type="invalid_output",
            error=why,
        )
        said = {**conversation.answer_of(answer.completion), WRONG: why}
        trip.answers = trip.answers[:-1]
        trip.wrong += (said,)
        return self._keep(trip, outcome, said)

    def _keep(self, trip: Trip, outcome: Outcome, said: Mapping[str, Any]) -> Answered:
        """What is recorded of an answer that another follows; the trip begins anew behind it."""
        # Each record holds what is its own: the item's trips are added up by its outcome alone.
        turn = dataclasses.replace(outcome, turns=conversation.written([said]), possibly_billed=0)
        trip.request, trip.failures, trip.unreadable, trip.error, trip.retry = None, 0, 0, None, False
        trip.failed_prompt_tokens = trip.failed_completion_tokens = None
        return Answered(turn=turn)


def _unmended(outcome: Outcome, last: Mapping[str, Any]) -> Outcome:
    """The server refuses to mend an answer, as one that is too long to be sent back: it stays the item's."""
    return dataclasses.replace(
        outcome,
        error_type="invalid_output",
        error=f"{last[WRONG]}; asked to mend it: {outcome.error}",
        text=last.get("text"),
        finish_reason=last.get("finish_reason"),
        response_id=last.get("response_id"),
    )


def _sum(known: int | None, more: int | None) -> int | None:
    return known if more is None else (known or 0) + more
