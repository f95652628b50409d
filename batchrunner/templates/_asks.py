"""What `Provider.build` takes: messages and whatever else is set, whoever said it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow

if TYPE_CHECKING:
    from collections.abc import Mapping

_APART = frozenset({"prompt", "messages", "turns", "system", "extra", "agent_id", "session_id", "conversation"})
_SYSTEMS = ("system", "developer")
_NAMES = {str: "text", bool: "a bool", int: "a number", float: "a number", list: "a list", dict: "an object"}


def ask_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The ask that these fields make; null means that a field is not set. Raises BadRow."""
    ask = {name: value for name, value in said.items() if value is not None and name not in _APART}
    ask["messages"] = _messages(said)
    if (turns := said.get("turns")) is not None:
        ask["turns"] = _turns(turns)
    for name in ("agent_id", "session_id", "conversation"):
        if (value := said.get(name)) is not None:
            ask[name] = id_of(name, value)
    if (extra := said.get("extra")) is not None:
        if not isinstance(extra, dict):
            raise BadRow(f"extra: expected an object, got {kind_of(extra)}")
        ask["extra"] = {name: value for name, value in extra.items() if value is not None}
    return ask


def _messages(said: Mapping[str, Any]) -> list[Any]:
    """The messages in front of the first answer; with turns, those in front of the first turn."""
    messages, system = _asked(said), said.get("system")
    if system is None or system == "" or any(_is_system(message) for message in messages):
        return messages
    if not isinstance(system, str):
        raise BadRow(f"system: expected text, got {kind_of(system)}")
    return [{"role": "system", "content": system}, *messages]


def _asked(said: Mapping[str, Any]) -> list[Any]:
    prompt, messages, turns = said.get("prompt"), said.get("messages"), said.get("turns")
    if messages is None and turns is None:
        return [{"role": "user", "content": _prompt(prompt)}]
    if prompt is not None:
        raise BadRow(f"both 'prompt' and '{'turns' if messages is None else 'messages'}'; give one of them")
    if messages is None:
        return []
    if not isinstance(messages, list):
        raise BadRow(f"messages: expected a list, got {kind_of(messages)}")
    return [_tidy(message) for message in messages]


def _prompt(prompt: Any) -> str:
    # In CSV, a column of prompts that are all numbers is a column of numbers.
    if isinstance(prompt, int | float) and not isinstance(prompt, bool):
        return str(prompt)
    if not isinstance(prompt, str):
        raise BadRow(f"prompt: expected text, got {kind_of(prompt)}")
    if not prompt or prompt.isspace():
        raise BadRow("prompt: nothing to ask, the text is empty")
    return prompt


def _turns(turns: Any) -> list[Any]:
    """The messages that are sent one after another, each once the one before it is answered."""
    if isinstance(turns, str):
        turns = from_json("turns", turns)
    if not isinstance(turns, list) or not turns:
        raise BadRow(f"turns: expected a list of at least one text, got {kind_of(turns)}")
    return [_turn(number, turn) for number, turn in enumerate(turns)]


def _turn(number: int, turn: Any) -> Any:
    if isinstance(turn, dict):
        message = {"role": "user", **_tidy(turn)}
        if not message.get("content"):
            raise BadRow(f"turns[{number}]: expected a message with content, got one without")
        return message
    if not isinstance(turn, str) or not turn or turn.isspace():
        raise BadRow(f"turns[{number}]: expected a text that is not empty, got {kind_of(turn)}")
    return {"role": "user", "content": turn}


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


def id_of(name: str, value: Any) -> str:
    """An id as text. Raises BadRow."""
    if isinstance(value, str):
        return value
    # A table with gaps has its whole numbers as floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRow(f"{name}: expected text or a whole number, got {kind_of(value)}")


def session_of(conversation: Any, session_id: Any) -> str | None:
    """The name under which items are asked one after another; None for an item on its own. Raises BadRow."""
    if conversation is not None and conversation != "":
        return f"conversation {id_of('conversation', conversation)}"
    if session_id is not None and session_id != "":
        return f"session {id_of('session_id', session_id)}"
    return None


def from_json(name: str, text: str) -> Any:
    """What a column holds as JSON text. Raises BadRow."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{name}: expected JSON, got text that is not: {str(error)[:100]}") from None


def kind_of(value: Any) -> str:
    return "nothing" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")
