"""Making requests: what every dialect shares."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from batchrunner.errors import BadRow, JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Endpoint

MOST_SEGMENT_CHARS = 128
_COUNTS = frozenset({"max_completion_tokens", "max_tokens", "n", "seed", "top_logprobs"})
APART = frozenset({"messages", "turns", "agent_id", "session_id", "conversation", "extra"})
"""Keys of an ask that are no body field of that name everywhere."""


def fields_of(ask: Mapping[str, Any]) -> dict[str, Any]:
    """The body: messages, the fields that are set, and `extra` at the root. Raises BadRow."""
    body = {"messages": checked_messages(ask.get("messages"))}
    body |= {name: value for name, value in ask.items() if name not in APART and value is not None}
    extra = ask.get("extra")
    if extra is None:
        return body
    if not isinstance(extra, dict):
        raise BadRow(f"extra: expected an object, got {kind_of(extra)}")
    clash = sorted(map(str, extra.keys() & body.keys()))
    if clash:
        raise BadRow(f"extra: expected fields that are not given on their own, got {clash[0]!r}")
    return body | extra


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"messages: expected a list of at least one message, got {kind_of(messages)}")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRow(f"messages[{number}]: expected an object with a role, got {kind_of(message)}")
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise BadRow(f"messages[{number}].role: expected a text, got {kind_of(message.get('role'))}")
    return messages


def kind_of(value: Any) -> str:
    """How a value is named in a message, without showing much of it."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return repr(value)[:80] if isinstance(value, int | float) else repr(str(value)[:60])


def encode(body: Mapping[str, Any]) -> bytes:
    """The body as it is sent. Raises BadRow for what JSON has no word for."""
    try:
        data = orjson.dumps(body)
    except TypeError as error:
        field = next((name for name, value in body.items() if not _can_be_written(value)), "request")
        raise BadRow(f"{field}: expected what JSON can say, got something else ({str(error)[:200]})") from None
    # orjson writes NaN and infinities as null: what was asked would silently become something else.
    if b"null" in data:
        _refuse_no_numbers(body, "")
    return data


def _can_be_written(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def _refuse_no_numbers(value: Any, at: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"{at.lstrip('.')}: expected a number, got {value!r}")
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_no_numbers(inner, f"{at}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _refuse_no_numbers(inner, f"{at}[{number}]")


def request_key(name: str, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> str:
    """Hash of what is bought: the same for any order of keys, whatever the volatile fields hold."""
    bought = dict(body)
    for dotted in endpoint.volatile:
        bought = _without(bought, dotted.removeprefix("extra."))
    digest = _digest_at(name, endpoint.base_url, path).copy()
    digest.update(orjson.dumps(bought, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _digest_at(*pieces: str) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece.encode() + b"\0")
    return digest


def _without(table: dict[str, Any], dotted: str) -> dict[str, Any]:
    """The table without the field; a name may itself hold dots."""
    if dotted in table:
        return {name: value for name, value in table.items() if name != dotted}
    head, _, rest = dotted.partition(".")
    inner = table.get(head)
    return {**table, head: _without(inner, rest)} if rest and isinstance(inner, dict) else table


def plain_id(value: Any) -> str | None:
    """An id as text; None where there is none. A column of whole numbers with gaps arrives as floats."""
    if value is None or isinstance(value, bool | list | dict) or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip() or None


def segment(value: Any, name: str) -> str:
    """One percent-encoded step of a path. Raises BadRow for what could lead elsewhere."""
    text = plain_id(value) or ""
    odd = any(c in "/\\?#" or ord(c) < 32 or 127 <= ord(c) < 160 or "\ud800" <= c <= "\udfff" for c in text)
    if not text or odd or text in (".", "..") or len(text) > MOST_SEGMENT_CHARS:
        raise BadRow(
            f"{name}: expected an id of at most {MOST_SEGMENT_CHARS} characters without / \\ ? #, got {kind_of(value)}"
        )
    return quote(text, safe="")


def prompt_chars(body: Mapping[str, Any]) -> int:
    """Characters of all texts that are sent, tools included: what prompt tokens are estimated from."""
    count = 0
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            count += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            count += sum(len(text) for text in texts if isinstance(text, str))
    tools = body.get("tools")
    return count + (len(orjson.dumps(tools)) if isinstance(tools, list) else 0)


def most_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def choices(body: Mapping[str, Any]) -> int:
    count = body.get("n")
    return count if isinstance(count, int) and count > 0 else 1


def clean_base_url(base_url: str, *, ends: tuple[str, ...]) -> str:
    """A base URL without trailing slash and without the `ends` that SDK samples put behind it. Raises JobError."""
    try:
        parts = urlsplit(base_url.strip())
        odd = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        odd = True
    # Blanks inside: the parser drops line ends unsaid, and the host becomes another.
    if odd or "@" in parts.netloc or re.search(r"[\s\\]", base_url.strip()):
        # Not shown: the address may hold a password.
        raise JobError("provider.base_url: expected an address such as 'https://api.example.com', without a password")
    if parts.query or parts.fragment:
        raise JobError(f"provider.base_url: expected no ? or # behind {parts.scheme}://{parts.netloc}{parts.path}")
    url = f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")
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
        if isinstance(value, list | dict) or (isinstance(value, int | float) and not _counts(value)):
            raise BadRow(f"{name}: expected a whole number of at least 1, got {kind_of(value)}")


def make_whole(body: dict[str, Any]) -> None:
    """Counts that a table with gaps has as floats, 5.0 for 5: some servers refuse those."""
    if _COUNTS.isdisjoint(body):
        return
    for name in _COUNTS:
        value = body.get(name)
        if isinstance(value, float) and value.is_integer():
            body[name] = int(value)


def _counts(value: float) -> bool:
    return not isinstance(value, bool) and value >= 1 and value == value // 1


def tools_are_a_list(body: Mapping[str, Any]) -> None:
    if body.get("tools") is not None and not isinstance(body["tools"], list):
        raise BadRow(f"tools: expected an array, got {kind_of(body['tools'])}")


def stream_is_a_flag(body: Mapping[str, Any]) -> None:
    # The Accept header follows it, so a text that a server would take for true is no way to say it.
    if body.get("stream") is not None and not isinstance(body["stream"], bool):
        raise BadRow(f"stream: expected true or false, got {kind_of(body['stream'])}")
