"""Outcomes: everything that is known of an item, put into the columns of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from batchrunner.providers import conversation
from batchrunner.records import Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.errors import ErrorType, RequestError
    from batchrunner.records import Status
    from batchrunner.stack import Answer
    from batchrunner.worker.trip import Pricing, Settings, Trip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Words outcomes for the trips of one run."""

    provider: str
    settings: Settings
    prices: Pricing
    changes: Callable[[Trip], str | None]
    now_us: Callable[[], int]

    def refused(self, trip: Trip, error_type: ErrorType, why: str) -> Outcome:
        """Nothing is sent for it."""
        return self._outcome(trip, "rejected", error_type=error_type, error=why)

    def answered(self, trip: Trip, answer: Answer, status: Literal["succeeded", "unfinished"]) -> Outcome:
        """Spelled out in full: this is done for every answer, and handing columns on costs as much as making them."""
        item, request = trip.item, trip.request
        completion, reply = answer.completion, answer.reply
        assert request is not None
        usage = completion.usage
        model = completion.model or request.model
        warnings = request.warnings + completion.warnings
        return Outcome(
            item_id=item.item_id,
            row=item.row,
            input_file=item.file,
            input_line=item.line,
            status=status,
            text=completion.text,
            reasoning=completion.reasoning,
            refusal=completion.refusal,
            finish_reason=completion.finish_reason,
            tool_calls=completion.tool_calls,
            choices=completion.choices,
            provider=self.provider,
            agent_id=request.agent_id,
            model=model,
            session_id=completion.session_id or request.session_id,
            response_id=completion.response_id,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            failed_prompt_tokens=trip.failed_prompt_tokens,
            failed_completion_tokens=trip.failed_completion_tokens,
            cost_usd=self._cost(trip, model, usage),
            origin="sent",
            attempts=trip.attempts,
            possibly_billed=trip.possibly_billed,
            http_status=reply.status,
            started_at=trip.started_at,
            finished_at=self.now_us(),
            latency_s=reply.latency_s,
            first_token_s=reply.first_token_s,
            request_key=request.key,
            sent_changes=self.changes(trip),
            warnings="; ".join(warnings) if warnings else None,
            response=completion.response if self.settings.keep_response else None,
            turns=conversation.written(trip.answers) if trip.answers else None,
        )

    def failed(self, trip: Trip, status: Status, error: RequestError, message: str) -> Outcome:
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
        asked = trip.request.model if trip.request else None
        answered = self.prices.cost(model, usage, asked=asked) if usage is not None else 0.0
        if trip.failed_prompt_tokens is None:
            return answered
        failed = Usage(prompt_tokens=trip.failed_prompt_tokens, completion_tokens=trip.failed_completion_tokens or 0)
        before = self.prices.cost(model, failed, asked=asked)
        return None if before is None or answered is None else before + answered

    def _outcome(self, trip: Trip, status: Status | Literal["unfinished"], **columns: Any) -> Outcome:
        item, request = trip.item, trip.request
        return Outcome(
            item_id=item.item_id,
            row=item.row,
            input_file=item.file,
            input_line=item.line,
            status=status,
            provider=self.provider,
            agent_id=request.agent_id if request else None,
            origin="sent" if trip.attempts else None,
            attempts=trip.attempts,
            possibly_billed=trip.possibly_billed,
            failed_prompt_tokens=trip.failed_prompt_tokens,
            failed_completion_tokens=trip.failed_completion_tokens,
            started_at=trip.started_at,
            finished_at=self.now_us(),
            request_key=request.key if request else None,
            sent_changes=self.changes(trip),
            turns=conversation.written(trip.answers) if trip.answers else None,
            **columns,
        )
