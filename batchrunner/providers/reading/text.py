"""Strings that can be stored, and messages that give nothing away."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import RequestError

if TYPE_CHECKING:
    from batchrunner.errors import ErrorType

MOST_CHARS = 2_000
_SURROGATES = re.compile("[\ud800-\udfff]")
_TAGS = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_KEYS = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{6,}|(?<=Bearer )\S+", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def storable(text: str) -> str:
    """The text with lone surrogates as U+FFFD; a pair that was split over two deltas becomes its character."""
    if text.isascii() or not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_or_none(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) else None


def message(text: str) -> str:
    """An error message as it is stored: one line, without tags and keys, capped."""
    plain = _KEYS.sub("***", _SPACE.sub(" ", _TAGS.sub(" ", storable(text[: 20 * MOST_CHARS])))).strip()
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"


def parse_json(body: bytes | str) -> Any:
    """The JSON in `body`. Raises ValueError for what is none; nothing else, however odd the bytes."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        return json.loads(text.lstrip("\ufeff \t\r\n"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump_json(value: Any) -> str:
    """Compact JSON that can be stored."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def unreadable(text: str, error_type: ErrorType = "malformed", *, status: int | None = 200) -> RequestError:
    return RequestError(text, verdict="retry", error_type=error_type, status=status, went_out=True)
