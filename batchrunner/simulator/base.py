"""What a dialect is: one vendor's paths aside, how it words answers, refusals and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from batchrunner.simulator.allowance import Kind, Standing
    from batchrunner.simulator.answers import Answer
    from batchrunner.simulator.asks import Ask

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request gets no answer, before a dialect words it."""

    status: int
    message: str
    field: str | None = None
    """Dotted name of the body field at fault."""
    given: Any = None
    limit: Kind | None = None
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A problem as a vendor words it."""

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """How one vendor answers. Pure: no I/O, no clock, no state."""

    name: str
    key_status: int
    """What a missing or wrong key is answered with."""
    field_status: int
    """What a body the vendor cannot read is answered with."""
    model: str
    """Named in answers to requests that name none."""

    def fault(self, body: Mapping[str, Any], target: str) -> Problem | None:
        """What the vendor refuses in a body. `target` is the agent or deployment of the path."""

    def refusal(self, problem: Problem) -> Refusal: ...

    def limit_headers(self, standings: Iterable[Standing], now: datetime) -> dict[str, str]: ...

    def completion(self, answer: Answer) -> dict[str, Any]:
        """The body of a plain reply."""

    def events(self, answer: Answer, ask: Ask) -> list[bytes]:
        """The server-sent events of a streamed reply, each with its blank line."""


def event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def message_fault(body: Mapping[str, Any], roles: Collection[str] | None, status: int) -> Problem | None:
    """What no vendor takes as `messages`; `roles` are those it knows, None for any."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return Problem(status=status, message="expected a list of messages", field="messages", given=messages)
    for number, message in enumerate(messages):
        place = f"messages.{number}"
        if not isinstance(message, dict):
            return Problem(status=status, message="expected an object", field=place, given=message)
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or (roles is not None and role not in roles):
            known = ", ".join(roles) if roles else "a string"
            return Problem(
                status=status, message=f"expected role {known}, got {role!r}", field=f"{place}.role", given=role
            )
        if content is not None and not isinstance(content, str | list):
            wanted = "expected text or a list of parts"
            return Problem(status=status, message=wanted, field=f"{place}.content", given=content)
    return None


def number_fault(body: Mapping[str, Any], name: str, least: float, most: float, status: int) -> Problem | None:
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most):
        return None
    wanted = f"expected a number from {least:g} to {most:g}, got {value!r}"
    return Problem(status=status, message=wanted, field=name, given=value)


def whole_fault(body: Mapping[str, Any], name: str, most: float, status: int) -> Problem | None:
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most):
        return None
    return Problem(
        status=status, message=f"expected a whole number of 1 or more, got {value!r}", field=name, given=value
    )
