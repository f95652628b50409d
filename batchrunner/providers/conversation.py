"""Items of several turns: the request for each turn, made of the answers so far."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.providers.base import Provider
    from batchrunner.records import Completion, Endpoint, Request

_NOTHING: frozenset[str] = frozenset()
_OWN = frozenset({"conversation", "repeat", "turns"})
"""What is said of items and never to a dialect."""


def build(
    provider: Provider,
    ask: Mapping[str, Any],
    endpoint: Endpoint,
    *,
    without: frozenset[str] = _NOTHING,
    answers: Sequence[Mapping[str, Any]] = (),
) -> Request:
    """The request for what comes behind `answers`, the only one where the ask has no turns. Raises BadRow.

    An answer is what `assistant` makes of one. The key is the item's: the same for all of its turns, and another one
    for each repeat.
    """
    turns, repeat = ask.get("turns"), ask.get("repeat", 1)
    plain = ask if _OWN.isdisjoint(ask) else {name: value for name, value in ask.items() if name not in _OWN}
    if not turns:
        request = provider.build(plain, endpoint, without=without)
        return request if repeat == 1 else replace(request, key=_key(request.key, repeat))
    opening = [*plain["messages"], turns[0]]
    first = provider.build({**plain, "messages": opening}, endpoint, without=without)
    request = first
    if answers:
        said = [message for pair in zip(answers, turns[1:], strict=False) for message in pair]
        request = provider.build({**plain, "messages": [*opening, *said]}, endpoint, without=without)
    key = _key(first.key, turns)
    return replace(request, key=key if repeat == 1 else _key(key, repeat), turns=len(turns))


def corrected(
    provider: Provider,
    ask: Mapping[str, Any],
    endpoint: Endpoint,
    corrections: Sequence[Mapping[str, Any]],
    *,
    without: frozenset[str] = _NOTHING,
    answers: Sequence[Mapping[str, Any]] = (),
) -> Request:
    """The same request with these messages behind all others; its key stays the item's. Raises BadRow."""
    plain = build(provider, ask, endpoint, without=without, answers=answers)
    messages = orjson.loads(plain.body)["messages"]
    bare = {name: value for name, value in ask.items() if name not in _OWN}
    more = provider.build({**bare, "messages": [*messages, *corrections]}, endpoint, without=without)
    return replace(more, key=plain.key, turns=plain.turns)


def _key(first: str, more: Any) -> str:
    """What is bought beyond a first request: further turns, or the same once more."""
    return hashlib.blake2b(first.encode() + orjson.dumps(more), digest_size=16).hexdigest()


def answer_of(completion: Completion) -> dict[str, Any]:
    """An answered turn as it is kept: what was said, and what it used."""
    usage = completion.usage
    known = {
        "text": completion.text,
        "refusal": completion.refusal,
        "tool_calls": orjson.loads(completion.tool_calls) if completion.tool_calls else None,
        "finish_reason": completion.finish_reason,
        "response_id": completion.response_id,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    return {name: value for name, value in known.items() if value is not None}


def written(answers: Sequence[Mapping[str, Any]]) -> str:
    """Answers as the column `turns` has them."""
    return orjson.dumps(list(answers)).decode()


def assistant(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The message that says in the next turn what was answered in this one."""
    message = {"role": "assistant", "content": answer.get("text") or answer.get("refusal") or ""}
    calls = answer.get("tool_calls")
    return {**message, "tool_calls": calls} if calls else message
