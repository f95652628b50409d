"""What `[request]` may hold. Values may be templates, so only what no template can mend is checked here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batchrunner.spec.faults import Fault, Key, expected, near
from batchrunner.spec.kinds import is_encodable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

CHAT_FIELDS = frozenset({
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "messages", "metadata", "modalities", "model", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "response_format",
    "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
})  # fmt: skip
"""The body fields of a chat completion."""

ROW_FIELDS = CHAT_FIELDS | {"agent_id", "conversation", "extra", "prompt", "session_id", "system", "turns"}
"""What a row, or `[request]`, can say about its request."""

REQUEST_KEYS = ROW_FIELDS | {"volatile"}
"""What `[request]` can hold."""

QUESTIONS = ("prompt", "messages", "turns")
"""What makes a job's rows data: with one of these in `[request]`, only templates read them."""

_TEXTS = ("model", "prompt", "system")
_TEXTS_OR_NUMBERS = ("agent_id", "conversation", "session_id")


def has_question(fields: Collection[str]) -> bool:
    """Whether a job's fields say themselves what is asked, so that rows are data."""
    return any(name in fields for name in QUESTIONS)


def request_faults(job: Mapping[str, Any]) -> Iterator[Fault]:
    """Everything wrong with a job's `[request]`, when it is a table."""
    request = job.get("request", {})
    if not isinstance(request, dict):
        return
    for key, value in request.items():
        if key not in REQUEST_KEYS:
            yield Fault(at=("request", key), said=_unknown(key), alone=True)
            continue
        yield from field_faults(key, value, ("request", key))
    for other in ("messages", "turns"):
        if "prompt" in request and other in request:
            yield Fault(at=("request", "prompt"), said=f"expected either prompt or {other}, got both")


def field_faults(name: str, value: Any, at: Key) -> Iterator[Fault]:
    """Everything wrong with the value of one field."""
    yield from _json_faults(value, at)
    if (said := _kind_fault(name, value)) is not None:
        yield Fault(at=at, said=said)
    if name == "messages":
        yield from _message_faults(value, at)
    if name == "turns":
        yield from _turn_faults(value, at)


def _unknown(key: str) -> str:
    close = near(key, REQUEST_KEYS)
    hint = "further root fields of the body go into 'extra'"
    return f"unknown key {key!r} in [request]" + (f"{close} ({hint})" if close else f"; {hint}")


def _kind_fault(key: str, value: Any) -> str | None:
    if key in _TEXTS and not (isinstance(value, str) and value):
        return expected("text", value)
    if key in _TEXTS_OR_NUMBERS and (isinstance(value, bool) or not isinstance(value, str | int) or value == ""):
        return expected("a number or text", value)
    if key == "extra" and not isinstance(value, dict):
        return expected("a table of further root fields", value)
    if key == "volatile" and not (isinstance(value, list) and all(isinstance(each, str) and each for each in value)):
        return expected("a list of dotted body fields such as ['extra.trace_id']", value)
    if key == "stream" and not isinstance(value, bool | str):
        return expected("true or false", value)
    return None


def _message_faults(messages: Any, at: Key) -> Iterator[Fault]:
    if not isinstance(messages, list) or not messages:
        yield Fault(at=at, said=expected("[[request.messages]] tables", messages))
        return
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            yield Fault(at=(*at, index), said=expected("a table with role and content", message))
        elif not isinstance(message.get("role"), str) or not message["role"]:
            yield Fault(at=(*at, index, "role"), said=expected("a role such as 'user'", message.get("role", "")))


def _turn_faults(turns: Any, at: Key) -> Iterator[Fault]:
    if isinstance(turns, str) and turns:
        return
    if not isinstance(turns, list) or not turns:
        yield Fault(at=at, said=expected("a list of texts, or a template that gives one", turns))
        return
    for index, turn in enumerate(turns):
        if not isinstance(turn, str | dict) or not turn:
            yield Fault(at=(*at, index), said=expected("a text, or a table with content", turn))


def _json_faults(value: Any, at: Key) -> Iterator[Fault]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _json_faults(each, (*at, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _json_faults(each, (*at, index))
    elif isinstance(value, str):
        if not is_encodable(value):
            yield Fault(at=at, said="expected text in UTF-8")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            yield Fault(at=at, said=expected("a whole number of 64 bits", value))
    elif not isinstance(value, float) or not math.isfinite(value):
        yield Fault(at=at, said=expected("a value that JSON has", value))
