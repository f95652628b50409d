"""Chunks of a stream put together to the reply that the same server gives without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.providers.reading.calls import Call, Calls
from batchrunner.providers.reading.envelope import error_in
from batchrunner.providers.reading.text import parse_json, stops_early, storable, whole
from batchrunner.providers.reading.usage import reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.records import Event

_BESIDES = ("reasoning_content", "reasoning", "refusal")
_APART = frozenset({"choices", "usage", "object", "obfuscation"})


@dataclass(slots=True)
class Choice:
    """One choice under way."""

    index: int
    finish_reason: str | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    legacy: Call | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        """Take a chunk's part of this choice. Raises ValueError where its shape hides what was said."""
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish_reason = reason
        delta = choice.get("delta")
        if not delta and not self._begun():
            # Some servers put a whole message into the only event.
            delta = choice.get("message") or delta
        if delta is None:
            delta = {"content": choice.get("text")}
        if not isinstance(delta, dict):
            raise ValueError("delta is no object")
        if (content := delta.get("content")) is not None:
            self.texts.setdefault("content", []).append(text_of(content))
        for name in _BESIDES:
            if isinstance(value := delta.get(name), str):
                self.texts.setdefault(name, []).append(value)
        self._add_calls(delta)

    def _begun(self) -> bool:
        return bool(self.texts or self.calls or self.legacy)

    def _add_calls(self, delta: Mapping[str, Any]) -> None:
        if delta.get("tool_calls"):
            self.calls.add(delta["tool_calls"])
        if isinstance(function := delta.get("function_call"), dict):
            self.legacy = self.legacy or Call(index=0)
            self.legacy.extend(function)

    def as_body(self) -> dict[str, Any]:
        found: dict[str, Any] = {"role": "assistant", "content": None}
        found |= {name: storable("".join(pieces)) for name, pieces in self.texts.items()}
        if found["content"] == "" and (self.calls or self.legacy or found.get("refusal")):
            found["content"] = None
        if self.calls:
            found["tool_calls"] = self.calls.as_body()
        if self.legacy:
            found["function_call"] = self.legacy.as_body()["function"]
        return {"index": self.index, "message": found, "finish_reason": self.finish_reason}


def text_of(value: Any) -> str:
    """A text, or the texts of a list of parts, as sent. Raises ValueError for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"a text is a {type(value).__name__}")
    parts = [part.get("text") if isinstance(part, dict) else part for part in value]
    return "".join(part for part in parts if isinstance(part, str))


@dataclass(slots=True)
class Joined:
    """A stream put together, and what was wrong with it."""

    head: dict[str, Any] = field(default_factory=dict)
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    error: Any = None
    unreadable: str | None = None
    """An event that no chunk could be made of."""
    torn: str | None = None
    """The last event, where it breaks off."""
    foreign: dict[str, Any] | None = None
    """A chunk of another protocol: neither choices nor usage."""

    @property
    def finished(self) -> bool:
        """Every choice that was seen has a finish_reason."""
        return bool(self.choices) and all(choice.finish_reason for choice in self.choices.values())

    def as_body(self) -> dict[str, Any]:
        choices = [self.choices[index].as_body() for index in sorted(self.choices)]
        body = {**self.head, "object": "chat.completion", "choices": choices}
        return {**body, "usage": self.usage} if self.usage is not None else body


def join(events: Sequence[Event]) -> Joined:
    """Put a stream's chunks together. An error in it wins, wherever it stands."""
    joined = Joined()
    for number, event in enumerate(events):
        try:
            chunk = parse_json(event.data)
        except ValueError as error:
            if event.name == "error":
                joined.error = joined.error or {"error": event.data}
            elif number == len(events) - 1 and stops_early(error):
                joined.torn = event.data
            else:
                joined.unreadable = joined.unreadable or event.data
            continue
        try:
            _take(joined, chunk, is_error=event.name == "error")
        except ValueError:
            joined.unreadable = joined.unreadable or event.data
    return joined


def _take(joined: Joined, chunk: Any, *, is_error: bool) -> None:
    error = error_in(chunk)
    if is_error and error is None:
        error = {"error": chunk if isinstance(chunk, dict | str) else {"message": str(chunk)}}
    if error is not None:
        joined.error = joined.error or error
    if isinstance(chunk, dict):
        joined.usage = reported(chunk) or joined.usage
    if error is not None:
        return
    if not isinstance(chunk, dict):
        raise ValueError("a chunk is no object")
    for name, value in chunk.items():
        if value and name not in joined.head and name not in _APART:
            joined.head[name] = value
    choices = chunk.get("choices")
    if choices is None:
        joined.foreign = joined.foreign or (None if reported(chunk) else chunk)
        return
    if not isinstance(choices, list):
        raise ValueError("choices is no list")
    for position, choice in enumerate(choices):
        _take_choice(joined, choice, position)


def _take_choice(joined: Joined, choice: Any, position: int) -> None:
    if not isinstance(choice, dict):
        raise ValueError("a choice is no object")
    if error := error_in_choice(choice):
        joined.error = joined.error or error
        return
    index = whole(choice.get("index"))
    index = position if index is None else index
    if index not in joined.choices:
        joined.choices[index] = Choice(index)
    joined.choices[index].add(choice)


def error_in_choice(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    if choice.get("error"):
        return {"error": choice["error"]}
    if choice.get("finish_reason") == "error":
        return {"error": {"message": "the provider ended its answer with finish_reason 'error'"}}
    return None
