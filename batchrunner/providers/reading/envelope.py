"""What an error body says, whatever its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.providers.reading.text import dump_json, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_WORD_CHARS = 60
# Older nodes behind the gateway fold these into a 400, sometimes as JSON inside a JSON string.
_FOLDED = re.compile(r"""statusCode\\*["']\s*:\s*(?:\\*["'])?(429|503)\b""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    words: tuple[str, ...] = ()
    """Code, then type, then inner codes; in lower case, blanks as underscores."""
    status: int | None = None
    """A status of the error's own."""
    folded: int | None = None
    """A rate limit or overload that the body carries as `statusCode`."""
    text: str = ""
    page: bool = False
    """HTML: a proxy or a web server answered, not the API."""


def error_in(document: Any) -> Mapping[str, Any] | None:
    """The document, if it says that something went wrong. `error: null` says nothing."""
    if isinstance(document, list):
        return next((found for entry in document if (found := error_in(entry)) is not None), None)
    if isinstance(document, dict) and (document.get("error") or document.get("object") == "error"):
        return document
    return None


def open_envelope(body: Any, raw: str) -> Envelope:
    """Read an error body: OpenAI's and the gateway's object, Tess's text, FastAPI's detail, Laravel's message."""
    body = error_in(body) or body
    if not isinstance(body, dict):
        return Envelope(text=raw, page=raw.lstrip("\ufeff \t\r\n").startswith("<"), folded=_folded(raw))
    error = body.get("error")
    error = next((entry for entry in error if isinstance(entry, dict)), None) if isinstance(error, list) else error
    told = error if isinstance(error, dict) else body
    inner = told.get("innererror")
    words = (told.get("code"), told.get("type"), inner.get("code") if isinstance(inner, dict) else None)
    return Envelope(
        words=_words(*words, error),
        status=_status(told.get("status")) or _status(told.get("code")) or _status(error),
        folded=_folded(raw),
        text=_from_object(error) if isinstance(error, dict) else _from_root(body),
    )


def _from_object(error: Mapping[str, Any]) -> str:
    told = error.get("message")
    if told:
        return told if isinstance(told, str) else dump_json(told)
    return ": ".join(str(error[name]) for name in ("type", "code") if error.get(name)) or _names(error)


def _from_root(body: Mapping[str, Any]) -> str:
    said = [body.get("error"), body.get("message")]
    said = [*said[0], said[1]] if isinstance(said[0], list) else said
    pieces = [piece for piece in said if isinstance(piece, str)]
    pieces += filter(None, (_fields(body.get("messages")), _fields(body.get("errors")), _detail(body.get("detail"))))
    return ": ".join(filter(None, pieces)) or _names(body)


def _names(body: Mapping[str, Any]) -> str:
    # Only names: a value may echo the prompt.
    return f"an error without a message (fields: {', '.join(sorted(map(str, body))[:8])})" if body else ""


def _detail(detail: Any) -> str:
    """FastAPI's detail, without `input`, which may echo the whole prompt."""
    if isinstance(detail, dict):
        return _from_root(detail)
    entries = detail if isinstance(detail, list) else [detail]
    return "; ".join(filter(None, map(_detail_entry, entries)))


def _detail_entry(entry: Any) -> str:
    if not isinstance(entry, dict):
        return entry if isinstance(entry, str) else ""
    where = entry.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else ""
    return ": ".join(filter(None, (place, str(entry.get("msg") or entry.get("type") or ""))))


def _fields(messages: Any) -> str:
    """Tess's `messages` and Laravel's `errors`: what is wrong with each field."""
    if not isinstance(messages, dict):
        return ""
    return "; ".join(
        f"{name}: {', '.join(map(str, told)) if isinstance(told, list) else told}" for name, told in messages.items()
    )


def _words(*values: Any) -> tuple[str, ...]:
    return tuple(
        value.strip().lower().replace(" ", "_")
        for value in values
        if isinstance(value, str) and 0 < len(value) <= MOST_WORD_CHARS
    )


def _status(value: Any) -> int | None:
    found = whole(value)
    return found if found is not None and 300 <= found <= 599 else None


def _folded(raw: str) -> int | None:
    found = _FOLDED.search(raw)
    return int(found[1]) if found else None
