"""Tool calls: fragments put together, and the one form they are stored in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.providers.reading.text import dump_json, id_text, parse_json, storable, text_or_none, whole

if TYPE_CHECKING:
    from collections.abc import Mapping


def stored_calls(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message's tool calls in today's form; the arguments stay the text that was sent."""
    legacy = found.get("function_call")
    listed = [call for call in listed_calls(found.get("tool_calls")) if isinstance(call, dict)]
    if not listed and isinstance(legacy, dict):
        listed = [{"function": legacy}]
    return [_stored(call) for call in listed]


def listed_calls(calls: Any) -> list[Any]:
    """A few servers send a single call without its list."""
    return calls if isinstance(calls, list) else [calls] if isinstance(calls, dict) else []


def _stored(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict):
        return dict(call)
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = dump_json(arguments)
    return {
        "id": id_text(call.get("id")),
        "type": text_or_none(call.get("type")) or "function",
        "function": {"name": text_or_none(function.get("name")), "arguments": text_or_none(arguments) or ""},
    }


@dataclass(slots=True)
class Call:
    """One tool call under way."""

    index: int
    id: str | None = None
    type: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    custom: bool = False
    """A custom tool: its input is text of any form, where a function has arguments."""

    def extend(self, function: Mapping[str, Any]) -> None:
        self._name(function.get("name"))
        arguments = function.get("input" if self.custom else "arguments")
        if isinstance(arguments, dict | list):
            arguments = dump_json(arguments)
        if isinstance(arguments, str) and arguments:
            self.arguments.append(arguments)

    def _name(self, name: Any) -> None:
        """Some servers repeat the name on every fragment, in full or as far as it goes; a few split it."""
        if not isinstance(name, str) or name == self.name:
            return
        self.name = name if name.startswith(self.name) else self.name + name

    def continues(self, function: Mapping[str, Any]) -> bool:
        """Whether a fragment without an id of its own can be more of this call, rather than the next one."""
        name = function.get("name")
        if not name or not self.arguments:
            return True
        return name == self.name and not (function.get("arguments") and self._complete())

    def _complete(self) -> bool:
        if not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(parse_json("".join(self.arguments)), dict)
        except ValueError:
            return False

    def as_body(self) -> dict[str, Any]:
        name, said = storable(self.name) or None, storable("".join(self.arguments))
        if self.custom:
            return {"id": self.id, "type": self.type or "custom", "custom": {"name": name, "input": said}}
        return {"id": self.id, "type": self.type or "function", "function": {"name": name, "arguments": said}}


class Calls:
    """The tool calls of one choice under way."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        # A stream may hold any number of calls: looking through them all for each fragment would never end.
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragments: Any) -> None:
        """Take a delta's `tool_calls`. Raises ValueError for what is no list of objects."""
        listed = listed_calls(fragments)
        if not listed or not all(isinstance(fragment, dict) for fragment in listed):
            raise ValueError("tool_calls is no list of objects")
        for position, fragment in enumerate(listed):
            self._add(fragment, alone=len(listed) == 1, position=position)

    def _add(self, fragment: Mapping[str, Any], *, alone: bool, position: int) -> None:
        custom = isinstance(fragment.get("custom"), dict)
        function = fragment.get("custom" if custom else "function")
        function = function if isinstance(function, dict) else {}
        index = whole(fragment.get("index"))
        if index is None and not alone:
            index = position
        # An empty id or type says nothing: gateways send them with every fragment after the first.
        call_id = id_text(fragment.get("id"))
        call = self._call(call_id, index, function)
        call.custom = call.custom or custom
        if call.id is None and call_id is not None:
            call.id = call_id
            self._by_id[call_id] = call
        call.type = call.type or text_or_none(fragment.get("type")) or None
        call.extend(function)

    def _call(self, call_id: str | None, index: int | None, function: Mapping[str, Any]) -> Call:
        """By id, else by index, else the last one; a new id under a known index begins another call.

        Unless it comes without a name: a few servers give every fragment an id of its own.
        """
        if call_id is not None and call_id in self._by_id:
            return self._by_id[call_id]
        latest = self._calls[-1] if self._calls else None
        last = latest if index is None else self._by_index.get(index)
        new_id = call_id is not None and last is not None and last.id is not None and bool(function.get("name"))
        if last is not None and not new_id and last.continues(function):
            return last
        call = Call(self._next if index is None else index)
        self._next = max(self._next, call.index + 1)
        self._by_index[call.index] = call
        self._calls.append(call)
        return call

    def as_body(self) -> list[dict[str, Any]]:
        return [call.as_body() for call in sorted(self._calls, key=lambda call: call.index)]
