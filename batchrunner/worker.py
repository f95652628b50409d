"""One item's way to its outcome: prepared, attempted, attempted again, settled."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio

from batchrunner.errors import BadRow, ProviderRefused, ProviderUnavailable, RequestError
from batchrunner.limits.budget import NOTHING, Reservation
from batchrunner.providers import conversation
from batchrunner.records import Outcome, Usage
from batchrunner.retry import MOST_UNREADABLE, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.errors import BatchrunnerError
    from batchrunner.limits import Budget, Estimator
    from batchrunner.providers.base import Provider
    from batchrunner.records import Begun, Endpoint, Item, Request, Status
    from batchrunner.stack import Answer, Call, Channel

MOST_NOT_FOUND = 2
"""A row's own agent or model that was not found this often is not asked again."""


class Asks(Protocol):
    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """What a row asks for, as `Provider.build` takes it. Raises BadRow."""


class Pricing(Protocol):
    def cost(self, model: str | None, usage: Usage, *, asked: str | None = None) -> float | None:
        """USD, or None when the price or the tokens are unknown. `asked` is the model's name in the request."""


@dataclass(slots=True, kw_only=True)
class Trip:
    """An item on its way: what is sent for it, and what its attempts have come to so far."""

    item: Item
    began_at: float
    """Monotonic instant of the first preparation; the item's clock runs from here."""
    started_at: int
    """The same in microseconds since 1970 UTC, for the table."""
    request: Request | None = None
    own: str | None = None
    """The agent and model, where the row itself names them; None when they are the job's."""
    attempts: int = 0
    failures: int = 0
    """Failed attempts but for rate limits and those made while the lane was down."""
    unreadable: int = 0
    possibly_billed: int = 0
    failed_prompt_tokens: int | None = None
    failed_completion_tokens: int | None = None
    without: frozenset[str] = frozenset()
    reserved: Reservation = NOTHING
    session_fault: str | None = None
    """Why the item must not be asked: an earlier one of its session failed."""
    answers: tuple[Mapping[str, Any], ...] = ()
    """To the turns so far, those of an earlier run included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The item is to be tried again: not before `wait_s` seconds from now."""

    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A turn of the item was answered, and is to be kept; the next one can be asked."""

    turn: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """The item has no outcome in this run. `ends` is the error that ends the run, or its lane (`lane_only`)."""

    ends: BatchrunnerError
    lane_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the job says about every item."""

    endpoint: Endpoint
    item_s: float
    job_agent: str | None = None
    job_model: str | None = None
    keep_response: bool = True
    sent_changes: str | None = None
    """What `resend` changes, by name."""


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
    redact: Callable[[str], str]
    resend: Asks | None = None
    """Asks instead of `asks` what is sent; the item's request key stays that of `asks`."""
    begun: Mapping[str, Begun] = field(default_factory=dict)
    """By item: conversations to go on with."""
    now_us: Callable[[], int] = lambda: time.time_ns() // 1_000
    _refused_fields: set[str] = field(default_factory=set)
    _not_found: dict[str, int] = field(default_factory=dict)

    def start(self, item: Item) -> Trip:
        return Trip(item=item, began_at=anyio.current_time(), started_at=self.now_us())

    def prepare(self, trip: Trip) -> Outcome | None:
        """Make the trip's request and reserve for it. An outcome means: nothing is to be sent."""
        try:
            if trip.request is None or trip.without != self._left_out(trip):
                self._build(trip)
        except BadRow as error:
            return self._outcome(trip, "rejected", error_type="bad_row", error=str(error))
        if trip.session_fault is not None:
            return self._outcome(trip, "rejected", error_type="session", error=trip.session_fault)
        if trip.own and self._not_found.get(trip.own, 0) >= MOST_NOT_FOUND:
            error_text = f"{trip.own} was not found {MOST_NOT_FOUND} times; not asked again in this run"
            return self._outcome(trip, "rejected", error_type="not_found", error=error_text)
        reserved = self._reservation(trip)
        if reserved is None:
            model = trip.request.model if trip.request else None
            error_text = f"the price of model {model!r} is not known, so budget.max_cost_usd cannot be kept"
            return self._outcome(trip, "rejected", error_type="bad_row", error=error_text)
        trip.reserved = reserved
        return None

    def _build(self, trip: Trip) -> None:
        item = trip.item
        if item.fault is not None:
            raise BadRow(item.fault)
        trip.without = self._left_out(trip)
        request = self._request(trip, self.asks)
        self._go_on(trip, request.key)
        if self.resend is not None:
            request = dataclasses.replace(self._request(trip, self.resend), key=request.key)
        elif trip.answers:
            request = self._request(trip, self.asks)
        trip.request = request
        trip.own = self._own(request)

    def _request(self, trip: Trip, asks: Asks) -> Request:
        """What is sent now, as `asks` has it: the turn behind the last answer."""
        said = [conversation.assistant(answer) for answer in trip.answers]
        ask = asks.ask(trip.item.columns)
        return conversation.build(self.provider, ask, self.settings.endpoint, without=trip.without, answers=said)

    def _go_on(self, trip: Trip, key: str) -> None:
        """Take up what an earlier run had answered of the same turns, sent in the same way."""
        begun = self.begun.get(trip.item.item_id)
        if trip.attempts or begun is None or begun.request_key != key:
            return
        if _redone(begun.sent_changes) == _redone(self.settings.sent_changes):
            trip.answers, trip.attempts, trip.started_at = begun.answers, begun.attempts, begun.started_at

    def _left_out(self, trip: Trip) -> frozenset[str]:
        return trip.without | self._refused_fields

    def _own(self, request: Request) -> str | None:
        names = []
        if request.agent_id is not None and request.agent_id != self.settings.job_agent:
            names.append(f"agent {request.agent_id!r}")
        if request.model is not None and request.model != self.settings.job_model:
            names.append(f"model {request.model!r}")
        return " with ".join(names) or None

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
        self.estimator.learn(request, usage)
        tokens = usage.total_tokens
        # A reply that does not say what it used is booked as it was estimated, so that a cap still holds.
        cost = self.prices.cost(answer.completion.model or request.model, usage, asked=request.model)
        return Reservation(
            cost_usd=trip.reserved.cost_usd if cost is None else cost,
            tokens=trip.reserved.tokens if tokens is None else tokens,
        )

    def _book_failure(self, trip: Trip, error: RequestError, *, was_down: bool) -> Reservation:
        if error.went_out:
            trip.possibly_billed += 1
        if error.error_type in ("malformed", "truncated"):
            trip.unreadable += 1
        if error.error_type != "rate_limit" and not was_down:
            trip.failures += 1
        if error.prompt_tokens is None and error.completion_tokens is None:
            return NOTHING
        trip.failed_prompt_tokens = (trip.failed_prompt_tokens or 0) + (error.prompt_tokens or 0)
        trip.failed_completion_tokens = (trip.failed_completion_tokens or 0) + (error.completion_tokens or 0)
        usage = Usage(prompt_tokens=error.prompt_tokens or 0, completion_tokens=error.completion_tokens or 0)
        cost = self.prices.cost(trip.request.model if trip.request else None, usage)
        return Reservation(cost_usd=cost or 0.0, tokens=(error.prompt_tokens or 0) + (error.completion_tokens or 0))

    def _judge(self, trip: Trip, error: RequestError, channel: Channel) -> Outcome | Later | Unfinished:
        """What a failed attempt means for its item, its lane and the run."""
        message = self.redact(str(error))
        if error.verdict == "abort" and error.scope == "agent" and trip.own:
            self._not_found[trip.own] = self._not_found.get(trip.own, 0) + 1
            return self._failed(trip, "rejected", error, message)
        if error.verdict == "abort":
            return Unfinished(ends=ProviderRefused(f"{channel.label}: {message}"))
        if error.verdict == "defer":
            back = f"{message}; asks to come back in {error.wait_s:,.0f} s" if error.wait_s else message
            return Unfinished(ends=ProviderUnavailable(f"{channel.label}: {back}"), lane_only=True)
        if error.verdict == "reject":
            return self._failed(trip, "rejected", error, message)
        return self._again(trip, error, message, channel)

    def _again(self, trip: Trip, error: RequestError, message: str, channel: Channel) -> Outcome | Later:
        if error.without is not None and self._drops(trip, error.without):
            return Later(wait_s=error.wait_s or 0.0)
        if error.without == "stream_options":
            return self._failed(trip, "rejected", error, message)
        wait_s = self.backoff.wait_s(error, failures=trip.failures, unreadable=trip.unreadable)
        left_s = trip.began_at + self.settings.item_s - anyio.current_time()
        if channel.lane.breaker.open and wait_s is None and trip.unreadable <= MOST_UNREADABLE:
            wait_s = 0.0  # The lane is down, not the item: it waits for the probe.
        if wait_s is None or max(wait_s, channel.lane.paused_s()) > left_s:
            return self._failed(trip, "exhausted", error, message)
        return Later(wait_s=wait_s)

    def _drops(self, trip: Trip, field_name: str) -> bool:
        """Leave a refused field out: a session for this item, another one for all. False: it was not sent."""
        sent = trip.request is not None and (field_name != "session_id" or trip.request.session_id is not None)
        if not sent or field_name in trip.without:
            return False
        if field_name == "session_id":
            trip.request = None
            trip.without |= {field_name}
        else:
            self._refused_fields.add(field_name)
        return True

    def _answered(self, trip: Trip, answer: Answer) -> Outcome | Answered:
        """The item's outcome, or the turn that was answered where others are to follow."""
        request = trip.request
        assert request is not None
        if not request.turns:
            return self._succeeded(trip, answer, "succeeded")
        said = conversation.answer_of(answer.completion)
        trip.answers += (said,)
        if len(trip.answers) == request.turns:
            return self._succeeded(trip, answer, "succeeded")
        outcome = self._succeeded(trip, answer, "unfinished")
        # Each record holds what is its own: the item's trips are added up by its outcome alone.
        turn = dataclasses.replace(outcome, turns=conversation.written([said]), possibly_billed=0)
        trip.request, trip.failures, trip.unreadable = None, 0, 0
        trip.failed_prompt_tokens = trip.failed_completion_tokens = None
        return Answered(turn=turn)

    def _succeeded(self, trip: Trip, answer: Answer, status: Literal["succeeded", "unfinished"]) -> Outcome:
        completion, request = answer.completion, trip.request
        assert request is not None
        usage = completion.usage
        model = completion.model or request.model
        return self._outcome(
            trip,
            status,
            text=completion.text,
            reasoning=completion.reasoning,
            refusal=completion.refusal,
            finish_reason=completion.finish_reason,
            tool_calls=completion.tool_calls,
            choices=completion.choices,
            model=model,
            session_id=completion.session_id or request.session_id,
            response_id=completion.response_id,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=self._cost(trip, model, usage),
            http_status=answer.reply.status,
            latency_s=answer.reply.latency_s,
            first_token_s=answer.reply.first_token_s,
            warnings="; ".join((*request.warnings, *completion.warnings)) or None,
            response=completion.response if self.settings.keep_response else None,
        )

    def _failed(self, trip: Trip, status: Status, error: RequestError, message: str) -> Outcome:
        request = trip.request
        model = request.model if request else None
        return self._outcome(
            trip,
            status,
            model=model,
            session_id=request.session_id if request else None,
            cost_usd=self._cost(trip, model, None),
            http_status=error.status,
            error_type=error.error_type,
            error=message,
            warnings="; ".join(request.warnings) or None if request else None,
        )

    def _cost(self, trip: Trip, model: str | None, usage: Usage | None) -> float | None:
        """All that the trip cost: failed attempts included; None when a part of it is unknown."""
        failed = Usage(
            prompt_tokens=trip.failed_prompt_tokens or 0, completion_tokens=trip.failed_completion_tokens or 0
        )
        asked = trip.request.model if trip.request else None
        before = self.prices.cost(model, failed, asked=asked) if trip.failed_prompt_tokens is not None else 0.0
        answered = self.prices.cost(model, usage, asked=asked) if usage is not None else 0.0
        return None if before is None or answered is None else before + answered

    def _outcome(self, trip: Trip, status: Status | Literal["unfinished"], **columns: Any) -> Outcome:
        item, request = trip.item, trip.request
        return Outcome(
            item_id=item.item_id,
            row=item.row,
            input_file=item.file,
            input_line=item.line,
            status=status,
            provider=self.provider.name,
            agent_id=request.agent_id if request else None,
            origin="sent" if trip.attempts else None,
            attempts=trip.attempts,
            possibly_billed=trip.possibly_billed,
            failed_prompt_tokens=trip.failed_prompt_tokens,
            failed_completion_tokens=trip.failed_completion_tokens,
            started_at=trip.started_at,
            finished_at=self.now_us(),
            request_key=request.key if request else None,
            sent_changes=self._changes(trip),
            turns=conversation.written(trip.answers) if trip.answers else None,
            **columns,
        )

    def _changes(self, trip: Trip) -> str | None:
        changes = [self.settings.sent_changes] if self.settings.sent_changes else []
        changes += [f"without {name}" for name in sorted(trip.without)]
        return ", ".join(changes) or None


def _redone(sent_changes: str | None) -> set[str]:
    """What a redo sends differently, without the fields that a server made us leave out."""
    return {change for change in (sent_changes or "").split(", ") if change and not change.startswith("without ")}
