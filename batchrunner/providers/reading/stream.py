"""Chunks of a stream put together to the reply that the same server gives without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.providers.reading.text import dump_json, parse_json, storable
from batchrunner.providers.reading.usage import reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.records import Event

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


@dataclass(slots=True)
class Call:
    """One tool call under way."""

    index: int
    id: str | None = None
    type: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def as_body(self) -> dict[str, Any]:
        function = {"name": self.name or None, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": self.type or "function", "function": function}


@dataclass(slots=True)
class Choice:
    """One choice under way."""

    index: int
    finish_reason: str | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    legacy: Call | None = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        reason = chunk.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish_reason = reason
        told = [chunk.get(name) for name in ("delta", "message")]
        delta: dict[str, Any] = next((part for part in told if isinstance(part, dict)), {})
        for name in TEXTS:
            self._add_text(name, delta.get(name))
        for fragment in delta.get("tool_calls") or ():
            if isinstance(fragment, dict):
                self._add_call(fragment)
        if isinstance(function := delta.get("function_call"), dict):
            self.legacy = self.legacy or Call(index=0)
            _extend(self.legacy, function)

    def _add_text(self, name: str, value: Any) -> None:
        if isinstance(value, list):
            value = "".join(
                part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        if isinstance(value, str):
            self.texts.setdefault(name, []).append(value)

    def _add_call(self, fragment: Mapping[str, Any]) -> None:
        call = self._call_of(fragment)
        call.id = call.id or fragment.get("id") or None
        call.type = call.type or fragment.get("type") or None
        if isinstance(function := fragment.get("function"), dict):
            _extend(call, function)

    def _call_of(self, fragment: Mapping[str, Any]) -> Call:
        """By index; a new id under a known index begins another call, no index goes on with the last one."""
        call_id, index = fragment.get("id") or None, fragment.get("index")
        last = self.calls[-1] if self.calls else None
        if not isinstance(index, int):
            if last is not None and (call_id is None or call_id == last.id):
                return last
            index = last.index + 1 if last else 0
        same = [call for call in self.calls if call.index == index]
        if same and (call_id is None or call_id == same[-1].id or same[-1].id is None):
            return same[-1]
        self.calls.append(Call(index=index))
        return self.calls[-1]

    def as_body(self) -> dict[str, Any]:
        found: dict[str, Any] = {"role": "assistant", "content": None}
        found |= {name: storable("".join(pieces)) for name, pieces in self.texts.items()}
        if found["content"] == "" and (self.calls or self.legacy or found.get("refusal")):
            found["content"] = None
        if self.calls:
            found["tool_calls"] = [call.as_body() for call in self.calls]
        if self.legacy:
            found["function_call"] = self.legacy.as_body()["function"]
        return {"index": self.index, "message": found, "finish_reason": self.finish_reason}


def _extend(call: Call, function: Mapping[str, Any]) -> None:
    name, arguments = function.get("name"), function.get("arguments")
    # Some servers repeat the name in full on every fragment, none splits it.
    if isinstance(name, str) and name:
        call.name = name
    if isinstance(arguments, dict):
        arguments = dump_json(arguments)
    if isinstance(arguments, str):
        call.arguments.append(arguments)


@dataclass(slots=True)
class Joined:
    """A stream put together, and what was wrong with it."""

    head: dict[str, Any] = field(default_factory=dict)
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    unreadable: str | None = None
    last_unreadable: bool = False
    native: bool = False

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
        except ValueError:
            chunk = None
        if event.name == "error":
            joined.error = _error_of(chunk, event.data)
        elif not isinstance(chunk, dict):
            joined.unreadable = joined.unreadable or event.data[:500]
            joined.last_unreadable = number == len(events) - 1
        elif chunk.get("error"):
            joined.error = chunk
        else:
            _take(joined, chunk)
        if joined.error is not None:
            break
    return joined


def _error_of(chunk: Any, raw: str) -> dict[str, Any]:
    if isinstance(chunk, dict) and chunk.get("error"):
        return chunk
    return {"error": chunk if isinstance(chunk, dict) else {"message": raw}}


def _take(joined: Joined, chunk: Mapping[str, Any]) -> None:
    joined.usage = reported(chunk) or joined.usage
    for name in ("id", "created", "model", "system_fingerprint", "service_tier", "session_id"):
        if chunk.get(name) and not joined.head.get(name):
            joined.head[name] = chunk[name]
    choices = chunk.get("choices")
    if choices is None:
        joined.native = joined.native or ("output" in chunk and "status" in chunk)
        if joined.native:
            joined.unreadable = joined.unreadable or str(chunk)[:500]
        return
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _take_choice(joined, choice)


def _take_choice(joined: Joined, choice: Mapping[str, Any]) -> None:
    if choice.get("error"):
        joined.error = {"error": choice["error"]}
        return
    if choice.get("finish_reason") == "error":
        joined.error = {"error": {"message": "the provider ended the stream with finish_reason error"}}
        return
    index = choice.get("index")
    index = index if isinstance(index, int) else 0
    joined.choices.setdefault(index, Choice(index)).add(choice)
