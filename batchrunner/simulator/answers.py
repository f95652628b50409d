"""Answers that repeat: the same lot and the same ask give the same words, tokens and ids."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.simulator.asks import CHARS_PER_TOKEN, tokens
from batchrunner.simulator.chance import another, log_normal, share
from batchrunner.simulator.shaped import shaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.simulator.asks import Ask

CREATED = 1_767_225_600
"""Answers carry a time that does not pass, so that a run repeats byte for byte."""
OPENINGS = (
    'On "{}": the short answer is yes, with one condition.',
    'You asked about "{}", and the evidence points one way.',
    'Regarding "{}", three things matter.',
    '"{}" is a fair question, and it has a practical answer.',
)
MIDDLES = (
    "The first step is usually the cheapest one.",
    "Most of the cost comes from a few large cases.",
    "It helps to look at the exceptions before the average.",
    "A short trial says more than a long estimate.",
    "The figures agree once the two periods are compared alike.",
    "Customers notice the delay long before they notice the price.",
    "Nothing in the record contradicts this.",
    "The simplest explanation covers nine cases in ten.",
)
CLOSINGS = (
    "I would start there and review after a week.",
    "That leaves little doubt about what to do next.",
    "If that fails, the second option remains open.",
    "The details can wait until the first result is in.",
)
LABELS = ("billing", "bug", "feature", "question", "other")
PIECE_CHARS = 20
EXAMPLES: Mapping[str, Any] = {"integer": 1, "number": 0.5, "boolean": True, "array": [], "object": {}, "null": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    text: str | None
    finish_reason: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    @property
    def completion_tokens(self) -> int:
        written = self.text or "".join(call["function"]["arguments"] for call in self.tool_calls)
        return tokens(len(written))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model says, before a dialect words it."""

    answer_id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


def answer(
    ask: Ask, *, lot: bytes, seed: int, model: str, invalid_rate: float = 0.0, length_sigma: float = 0.0
) -> Answer:
    lots = (another(lot, number) if number else lot for number in range(ask.choices))
    choices = tuple(_choice(ask, each, seed, invalid_rate, length_sigma) for each in lots)
    return Answer(
        answer_id=lot.hex()[:24],
        model=ask.model or model,
        choices=choices,
        prompt_tokens=ask.prompt_tokens,
        completion_tokens=sum(choice.completion_tokens for choice in choices),
    )


def _choice(ask: Ask, lot: bytes, seed: int, invalid_rate: float, length_sigma: float) -> Choice:
    if ask.tool is not None:
        return Choice(text=None, finish_reason="tool_calls", tool_calls=(_call(ask.tool, ask.topic, seed),))
    text = _text(ask, lot, invalid_rate, length_sigma)
    if ask.max_tokens is not None and tokens(len(text)) > ask.max_tokens:
        return Choice(text=text[: ask.max_tokens * CHARS_PER_TOKEN], finish_reason="length")
    return Choice(text=text, finish_reason="stop")


def _text(ask: Ask, lot: bytes, invalid_rate: float, length_sigma: float) -> str:
    if ask.schema is not None:
        return shaped(ask.schema, ask.topic, lot, invalid_rate=invalid_rate)
    if ask.wants_json:
        return _verdict(ask.topic, lot)
    text = _prose(ask.topic, lot)
    return _as_long(text, log_normal(share(another(lot, 102)), length_sigma)) if length_sigma else text


def _prose(topic: str, lot: bytes) -> str:
    middles = [MIDDLES[byte % len(MIDDLES)] for byte in lot[9 : 10 + lot[8] % 3]]
    opening, closing = OPENINGS[lot[6] % len(OPENINGS)].format(topic), CLOSINGS[lot[7] % len(CLOSINGS)]
    # The same sentence twice would read like a fault.
    return " ".join([opening, *dict.fromkeys(middles), closing])


def _as_long(text: str, times: float) -> str:
    """The text over and over, cut where it is so many times as long."""
    return (f"{text} " * (int(times) + 1))[: max(1, round(len(text) * times))]


def _verdict(topic: str, lot: bytes) -> str:
    label = LABELS[lot[6] % len(LABELS)]
    reason = f'"{topic}" reads like {label}'
    return orjson.dumps({"label": label, "confidence": round(0.5 + share(lot) / 2, 2), "reason": reason}).decode()


def _call(tool: Mapping[str, Any], topic: str, seed: int) -> Mapping[str, Any]:
    """The same call in every dialect: only the tool, the topic and the seed decide."""
    function = {"name": tool["name"], "arguments": orjson.dumps(_arguments(tool.get("parameters"), topic)).decode()}
    call_id = blake2b(orjson.dumps(function), digest_size=12, key=str(seed).encode()[:64]).hexdigest()
    return {"id": f"call_{call_id}", "type": "function", "function": function}


def _arguments(parameters: Any, topic: str) -> dict[str, Any]:
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    if not isinstance(properties, dict):
        return {}
    return {name: _example(schema, topic) for name, schema in properties.items()}


def _example(schema: Any, topic: str) -> Any:
    if not isinstance(schema, dict):
        return topic
    allowed, kind = schema.get("enum"), schema.get("type")
    if isinstance(allowed, list) and allowed:
        return allowed[0]
    return EXAMPLES.get(kind, topic) if isinstance(kind, str) else topic


def pieces(text: str) -> Iterator[str]:
    """A text as a stream delivers it."""
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]
