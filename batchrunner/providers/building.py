"""Making requests: what every dialect shares."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from batchrunner.errors import BadRow, JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Endpoint

MOST_SEGMENT_CHARS = 128
APART = frozenset({"messages", "agent_id", "session_id", "extra"})
"""Keys of an ask that are no body field of that name everywhere."""


def fields_of(ask: Mapping[str, Any]) -> dict[str, Any]:
    """The body: messages, the fields that are set, and `extra` at the root. Raises BadRow."""
    body = {"messages": checked_messages(ask.get("messages"))}
    body |= {name: value for name, value in ask.items() if name not in APART and value is not None}
    extra = ask.get("extra") or {}
    if not isinstance(extra, dict):
        raise BadRow(f"extra: expected an object, got {kind_of(extra)}")
    clash = sorted(set(extra) & set(body))
    if clash:
        raise BadRow(f"extra: {clash[0]!r} is given as a field of its own already")
    return body | extra


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"messages: expected a list of at least one message, got {kind_of(messages)}")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRow(f"messages[{number}]: expected an object with a role, got {kind_of(message)}")
    return messages


def kind_of(value: Any) -> str:
    """How a value is named in a message, without showing much of it."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    return repr(value) if isinstance(value, int | float | bool) else f"{type(value).__name__} {str(value)[:60]!r}"


def encode(body: Mapping[str, Any]) -> bytes:
    """The body as it is sent. Raises BadRow for what JSON has no word for."""
    try:
        data = orjson.dumps(body)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise BadRow(f"request cannot be written as JSON: {str(error)[:200]}") from None
    # orjson writes NaN and infinities as null: what was asked would silently become something else.
    if b"null" in data:
        _refuse_no_numbers(body, "")
    return data


def _refuse_no_numbers(value: Any, at: str) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise BadRow(f"{at.lstrip('.')}: expected a number, got {value!r}")
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_no_numbers(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_no_numbers(inner, f"{at}[{number}]")


def request_key(name: str, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> str:
    """Hash of what is bought: the same for any order of keys, whatever the volatile fields hold."""
    bought = dict(body)
    for dotted in endpoint.volatile:
        bought = _without(bought, dotted.removeprefix("extra.").split("."))
    digest = hashlib.blake2b(digest_size=16)
    for piece in (name, endpoint.base_url, path):
        digest.update(piece.encode() + b"\0")
    digest.update(orjson.dumps(bought, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()


def _without(body: dict[str, Any], steps: list[str]) -> dict[str, Any]:
    head, *rest = steps
    if head not in body:
        return body
    if not rest:
        return {name: value for name, value in body.items() if name != head}
    inner = body[head]
    return {**body, head: _without(inner, rest)} if isinstance(inner, dict) else body


def segment(value: Any, name: str) -> str:
    """One percent-encoded step of a path. Raises BadRow for what could lead elsewhere."""
    text = str(value)
    odd = [c for c in text if c in "/\\?#" or ord(c) < 33 or ord(c) == 127]
    if not text or odd or text in (".", "..") or len(text) > MOST_SEGMENT_CHARS:
        raise BadRow(f"{name}: expected an id without / \\ ? # or spaces, of at most 128 characters, got {text[:60]!r}")
    return quote(text, safe="")


def prompt_chars(body: Mapping[str, Any]) -> int:
    """Characters of all texts that are sent, tools included: what prompt tokens are estimated from."""
    count = 0
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            count += len(content)
        elif isinstance(content, list):
            count += sum(
                len(part["text"]) for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
    tools = body.get("tools")
    return count + (len(orjson.dumps(tools)) if isinstance(tools, list) else 0)


def most_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def clean_base_url(base_url: str, *, ends: tuple[str, ...]) -> str:
    """A base URL without trailing slash and without the `ends` that SDK samples put behind it. Raises JobError."""
    parts = urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(f"provider.base_url: expected an address such as 'https://api.example.com', got {base_url!r}")
    if parts.query or parts.fragment:
        raise JobError(f"provider.base_url: expected no ? or #, got {base_url!r}")
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    for end in ends:
        url = url.removesuffix(end).rstrip("/")
    return url


def number_between(body: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRow(f"{name}: expected a number from {low:g} to {high:g}, got {kind_of(value)}")


def at_least_one(body: Mapping[str, Any], *names: str) -> None:
    for name in names:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadRow(f"{name}: expected a whole number of at least 1, got {kind_of(value)}")


def tools_are_a_list(body: Mapping[str, Any]) -> None:
    if body.get("tools") is not None and not isinstance(body["tools"], list):
        raise BadRow(f"tools: expected an array, got {kind_of(body['tools'])}")
