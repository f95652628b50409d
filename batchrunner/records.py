"""The facts that travel: an item, the request made of it, the reply, the completion, the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import dataclass as fact
else:

    def fact(*, frozen, slots, kw_only):
        """A dataclass, frozen for the type checker alone: really frozen ones take four times as long to make."""
        return dataclass(slots=slots, kw_only=kw_only, unsafe_hash=frozen)


__all__ = [
    "UNKNOWN_USAGE",
    "Begun",
    "Completion",
    "Endpoint",
    "Event",
    "Item",
    "Outcome",
    "Reply",
    "Request",
    "Status",
    "Usage",
    "fact",
]

Status = Literal["succeeded", "rejected", "exhausted"]


@fact(frozen=True, slots=True, kw_only=True)
class Item:
    """One input row. `fault` says why it cannot be read; `columns` is then empty."""

    item_id: str
    row: int
    """Position in the whole input, from 0."""
    file: str
    line: int | None
    """Line in `file`, from 1, where there are lines."""
    columns: Mapping[str, Any]
    fault: str | None = None


@fact(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one run sends its requests: what the job says once for all rows."""

    base_url: str
    """As `Provider.normalise` gave it: scheme, host, the path in front of the provider's own; no slash at the end."""
    workspace_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    """A dialect's own settings, such as a deployment."""
    volatile: frozenset[str] = frozenset()
    """Dotted body fields that are sent but do not belong to what is bought."""


@fact(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent for an item: the same item gives the same request."""

    path: str
    """Behind the base URL, percent-encoded, beginning with a slash."""
    body: bytes
    stream: bool
    """Whether server-sent events are asked for; decides the Accept header."""
    key: str
    """Hash of what is bought: provider, URL, path and body without the volatile fields."""
    agent_id: str | None = None
    model: str | None = None
    session_id: str | None = None
    prompt_chars: int = 0
    """Length of all message texts and tools, for the estimate of prompt tokens."""
    max_tokens: int | None = None
    choices: int = 1
    turns: int = 0
    """How many requests the item takes, one after another; 0 where it has no turns."""
    warnings: tuple[str, ...] = ()


@fact(frozen=True, slots=True, kw_only=True)
class Event:
    """One server-sent event: its name (`message` unless told) and its data, lines joined by LF."""

    name: str
    data: str


@fact(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back over the wire, whole or cut.

    Header names are in lower case; a repeated header is joined by ", ". `events` is None for a plain
    body, else the events in order; `body` is then empty. `done` says that `[DONE]` was read.
    `cut` names how the connection broke before the reply's end (None: it ended as framed).
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    events: tuple[Event, ...] | None = None
    done: bool = False
    cut: str | None = None
    latency_s: float = 0.0
    first_token_s: float | None = None


@fact(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion as the provider reported them; None means unknown, never 0."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


UNKNOWN_USAGE = Usage()


@fact(frozen=True, slots=True, kw_only=True)
class Completion:
    """A reply understood. Texts are of the first choice; every string can be encoded as UTF-8."""

    text: str | None
    finish_reason: str | None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: str | None = None
    """JSON array [{id, type, function{name, arguments}}]; arguments byte for byte as sent."""
    choices: str | None = None
    """JSON array of the messages when there are several."""
    model: str | None = None
    response_id: str | None = None
    session_id: str | None = None
    usage: Usage = UNKNOWN_USAGE
    response: str | None = None
    """Raw JSON of the reply, or of the joined stream."""
    warnings: tuple[str, ...] = ()


@fact(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The last word on an item: one record of the journal, one row of a part.

    The fields are the columns of `schema.RECORD`, in its order, with times in microseconds since
    1970 UTC. None means unknown.
    """

    item_id: str
    row: int
    input_file: str
    input_line: int | None
    status: Status | Literal["unfinished"]
    """`unfinished`: no outcome, but an answer that another is to follow, kept so that it is not bought again."""
    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    tool_calls: str | None = None
    choices: str | None = None
    provider: str | None = None
    agent_id: str | None = None
    model: str | None = None
    session_id: str | None = None
    response_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    failed_prompt_tokens: int | None = None
    failed_completion_tokens: int | None = None
    cost_usd: float | None = None
    origin: str | None = None
    attempts: int = 0
    possibly_billed: int = 0
    http_status: int | None = None
    error_type: str | None = None
    error: str | None = None
    started_at: int | None = None
    finished_at: int | None = None
    latency_s: float | None = None
    first_token_s: float | None = None
    request_key: str | None = None
    sent_changes: str | None = None
    warnings: str | None = None
    response: str | None = None
    turns: str | None = None
    """JSON array of the answers to the item's turns, in their order; in results only where items have turns."""


@fact(frozen=True, slots=True, kw_only=True)
class Begun:
    """An item that an earlier run left between two answers: those there are, for which request, sent how."""

    request_key: str
    sent_changes: str | None
    answers: tuple[Mapping[str, Any], ...]
    attempts: int
    started_at: int
