"""What `Provider.build` takes: messages and whatever else is set, whoever said it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow

if TYPE_CHECKING:
    from collections.abc import Mapping

_APART = frozenset({"prompt", "messages", "system", "extra", "agent_id", "session_id"})
_SYSTEMS = ("system", "developer")
_NAMES = {str: "text", bool: "a bool", int: "a number", float: "a number", list: "a list", dict: "an object"}


def ask_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The ask that these fields make; null means that a field is not set. Raises BadRow."""
    ask = {name: value for name, value in said.items() if value is not None and name not in _APART}
    ask["messages"] = _messages(said)
    for name in ("agent_id", "session_id"):
        if (value := said.get(name)) is not None:
            ask[name] = _id(name, value)
    if (extra := said.get("extra")) is not None:
        if not isinstance(extra, dict):
            raise BadRow(f"extra: expected an object, got {kind_of(extra)}")
        ask["extra"] = {name: value for name, value in extra.items() if value is not None}
    return ask


def _messages(said: Mapping[str, Any]) -> list[Any]:
    prompt, messages, system = said.get("prompt"), said.get("messages"), said.get("system")
    if messages is None:
        messages = [{"role": "user", "content": _prompt(prompt)}]
    elif prompt is not None:
        raise BadRow("both 'prompt' and 'messages'; give one of them")
    elif isinstance(messages, list):
        messages = [_tidy(message) for message in messages]
    else:
        raise BadRow(f"messages: expected a list, got {kind_of(messages)}")
    if system is None or system == "" or any(_is_system(message) for message in messages):
        return messages
    if not isinstance(system, str):
        raise BadRow(f"system: expected text, got {kind_of(system)}")
    return [{"role": "system", "content": system}, *messages]


def _prompt(prompt: Any) -> str:
    # In CSV, a column of prompts that are all numbers is a column of numbers.
    if isinstance(prompt, int | float) and not isinstance(prompt, bool):
        return str(prompt)
    if not isinstance(prompt, str):
        raise BadRow(f"prompt: expected text, got {kind_of(prompt)}")
    if not prompt or prompt.isspace():
        raise BadRow("prompt: nothing to ask, the text is empty")
    return prompt


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _SYSTEMS


def _tidy(message: Any) -> Any:
    """A message without members that are null only because a table has a column for them."""
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {
        name: value
        for name, value in message.items()
        if value is not None or (name == "content" and message.get("tool_calls"))
    }


def _id(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    # A table with gaps has its whole numbers as floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRow(f"{name}: expected text or a whole number, got {kind_of(value)}")


def from_json(name: str, text: str) -> Any:
    """What a column holds as JSON text. Raises BadRow."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{name}: expected JSON, got text that is not: {str(error)[:100]}") from None


def kind_of(value: Any) -> str:
    return "nothing" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")
