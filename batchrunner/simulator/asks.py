"""What a request asks for, whatever the dialect it was written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHARS_PER_TOKEN = 4
TOPIC_WORDS = 6
TOPIC_CHARS = 60
MOST_CHOICES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request body that a dialect accepted."""

    model: str | None
    topic: str
    """The first words of the last user message."""
    prompt_tokens: int
    stream: bool = False
    include_usage: bool = False
    wants_json: bool = False
    schema: Mapping[str, Any] | None = None
    """What the answer has to be an instance of."""
    tool: Mapping[str, Any] | None = None
    """The function that the answer calls."""
    max_tokens: int | None = None
    choices: int = 1

    @property
    def reserved_tokens(self) -> int:
        """What a token limit books before the answer is known."""
        return self.prompt_tokens + (self.max_tokens or 0) * self.choices


def read(body: Mapping[str, Any]) -> Ask:
    """Never fails on a body that the dialect accepted."""
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    texts = [text for message in messages for text in _texts(message.get("content"))]
    tools, options, model = body.get("tools"), body.get("stream_options"), body.get("model")
    chars = sum(map(len, texts)) + (len(orjson.dumps(tools)) if isinstance(tools, list) else 0)
    return Ask(
        model=model if isinstance(model, str) and model else None,
        topic=_topic(messages),
        prompt_tokens=tokens(chars),
        stream=body.get("stream") in (True, "true"),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        wants_json=_names_json_format(body.get("response_format")) or any("JSON" in text for text in texts),
        schema=_schema(body.get("response_format")),
        tool=_tool(body, messages),
        max_tokens=_whole(body.get("max_completion_tokens")) or _whole(body.get("max_tokens")),
        choices=min(_whole(body.get("n")) or 1, MOST_CHOICES),
    )


def tokens(chars: int) -> int:
    return max(1, -(-chars // CHARS_PER_TOKEN))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(text := part.get("text"), str):
                yield text


def _topic(messages: list[dict[str, Any]]) -> str:
    said = [message.get("content") for message in messages if message.get("role") == "user"]
    text = " ".join(_texts(said[-1])) if said else ""
    words = text[: TOPIC_WORDS * TOPIC_CHARS].split()[:TOPIC_WORDS]
    return " ".join(words)[:TOPIC_CHARS].rstrip(" .,:;?!") or "your request"


def _names_json_format(response_format: Any) -> bool:
    return isinstance(response_format, dict) and response_format.get("type") in ("json_object", "json_schema")


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    named = response_format.get("json_schema") if _names_json_format(response_format) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else None


def _tool(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> Mapping[str, Any] | None:
    """The first function offered; None once its result was given, or when calls are ruled out."""
    if body.get("tool_choice") == "none" or (messages and messages[-1].get("role") == "tool"):
        return None
    tools = body.get("tools")
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    if tools == "agent" and isinstance(body.get("functions"), list):
        functions = body["functions"]  # An agent's own tools, given to it as one of its inputs.
    return next((each for each in functions if isinstance(each, dict) and isinstance(each.get("name"), str)), None)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
