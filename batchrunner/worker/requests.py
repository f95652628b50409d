"""What is sent for a trip: the row's request, the next turn of its conversation, without what was refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow
from batchrunner.providers import conversation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.providers.base import Provider
    from batchrunner.records import Begun, Request
    from batchrunner.worker.trip import Asks, Settings, Trip


CORRECTION = (
    "Your answer does not fit what was asked for: {why}. "
    "Answer again with the corrected JSON alone, without any other text."
)
REPAIRED = "repaired"
WRONG = "wrong"
"""Of an answer that is kept: what is wrong with it."""


@dataclass(slots=True, kw_only=True)
class Requests:
    """Makes requests, and remembers which fields the server refuses."""

    provider: Provider
    asks: Asks
    resend: Asks | None
    begun: Mapping[str, Begun]
    settings: Settings
    _refused_fields: set[str] = field(default_factory=set)
    _expired: set[str] = field(default_factory=set)
    """Sessions that the server does not know any more."""

    def make(self, trip: Trip) -> None:
        """Give the trip its request, unless it has the right one already. Raises BadRow."""
        if trip.request is None or trip.without != self._left_out(trip):
            self._build(trip)

    def _build(self, trip: Trip) -> None:
        item = trip.item
        if item.fault is not None:
            raise BadRow(item.fault)
        trip.without = self._left_out(trip)
        request = self._request(trip, self.asks)
        if request.session_id in self._expired:
            trip.without |= {"session_id"}
            request = self._request(trip, self.asks)
        goes_on = self._go_on(trip, request.key)
        if self.resend is not None:
            request = dataclasses.replace(self._request(trip, self.resend), key=request.key)
        elif goes_on:
            request = self._request(trip, self.asks)
        trip.request = request
        trip.own = self._own(request)

    def _request(self, trip: Trip, asks: Asks) -> Request:
        """What is sent now, as `asks` has it: the turn behind the last answer."""
        said = [conversation.assistant(answer) for answer in trip.answers]
        ask = asks.ask(trip.item.columns)
        endpoint, without = self.settings.endpoint, trip.without
        if trip.wrong:
            corrections = [message for answer in trip.wrong for message in _correction(answer)]
            return conversation.corrected(self.provider, ask, endpoint, corrections, without=without, answers=said)
        return conversation.build(self.provider, ask, endpoint, without=without, answers=said)

    def _go_on(self, trip: Trip, key: str) -> bool:
        """Take up what an earlier run had answered of the same turns, sent in the same way; whether there was any."""
        begun = self.begun.get(trip.item.item_id)
        if trip.attempts or begun is None or begun.request_key != key:
            return False
        if _redone(begun.sent_changes) != _redone(self.settings.sent_changes):
            return False
        trip.attempts, trip.started_at = begun.attempts, begun.started_at
        trip.wrong = tuple(answer for answer in begun.answers if WRONG in answer)
        trip.answers = tuple(answer for answer in begun.answers if WRONG not in answer)
        return True

    def _left_out(self, trip: Trip) -> frozenset[str]:
        return trip.without | self._refused_fields

    def _own(self, request: Request) -> str | None:
        names = []
        if request.agent_id is not None and request.agent_id != self.settings.job_agent:
            names.append(f"agent {request.agent_id!r}")
        if request.model is not None and request.model != self.settings.job_model:
            names.append(f"model {request.model!r}")
        return " with ".join(names) or None

    def drop(self, trip: Trip, field_name: str) -> bool:
        """Leave a refused field out from here on, a session's name in its session. False: it was not sent."""
        request = trip.request
        if request is None or field_name in trip.without:
            return False
        if field_name != "session_id":
            self._refused_fields.add(field_name)
            return True
        if request.session_id is None:
            return False
        self._expired.add(request.session_id)
        trip.request = None
        trip.without |= {field_name}
        return True

    def changes(self, trip: Trip) -> str | None:
        """What is sent otherwise than the row asks, by name."""
        if not trip.without and not trip.wrong:
            return self.settings.sent_changes
        changes = [self.settings.sent_changes] if self.settings.sent_changes else []
        changes += [f"without {name}" for name in sorted(trip.without)]
        changes += [f"{REPAIRED} {len(trip.wrong)}x"] if trip.wrong else []
        return ", ".join(changes) or None


def _correction(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A wrong answer and what is said to it."""
    said = conversation.assistant({name: answer.get(name) for name in ("text", "refusal")})
    return [said, {"role": "user", "content": CORRECTION.format(why=answer[WRONG])}]


def _redone(sent_changes: str | None) -> set[str]:
    """What a redo sends differently, without the fields that a server made us leave out."""
    return {
        change
        for change in (sent_changes or "").split(", ")
        if change and not change.startswith(("without ", REPAIRED))
    }
