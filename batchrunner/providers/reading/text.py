"""Strings that can be stored, JSON that cannot break the reader, and messages that give nothing away."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

MOST_CHARS = 2_000
_MOST = 2**63 - 1
_MOST_LOOKED_AT = 4 * MOST_CHARS
_SURROGATES = re.compile("[\ud800-\udfff]")
_SCRIPTS = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
# No "<" inside: a text of nothing but "<" would take time by the square of its length.
_TAGS = re.compile(r"<[/!?a-z][^<>]*(?:>|\Z)", re.IGNORECASE)
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_KEYS = re.compile(
    r"\b(?:sk|pk|rk|key)-[\w*.-]{4,}"
    r"|(?<=bearer )(?!(?:tokens?|auth\w*|key|scheme|prefix|header|format|is|was|and|or)\b)[^\s\"']+"
    r"|\b\d+\|[A-Za-z0-9]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w.-]+",
    re.IGNORECASE,
)
# pydantic's words for what it was given, as JSON, as Python writes it, and in the text of its exception:
# servers put them into messages, and they hold the request, prompt and all. What stands behind is lost with them.
_ECHO = re.compile(r"""(?:["'](?:flagged_)?input\\{0,9}["']\s*:|\binput_value=).*""", re.IGNORECASE | re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,19}")
_HALF_A_VALUE = re.compile(r"[\w.+\\-]{0,9}")


def storable(text: str) -> str:
    """The text with lone surrogates as U+FFFD; a pair that was split over two deltas becomes its character."""
    if text.isascii() or not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def text_or_none(value: Any) -> str | None:
    if value is None:
        return None
    return storable(value) if isinstance(value, str) else None


def id_text(value: Any) -> str | None:
    """An id as text; servers also send numbers. None for an empty one, which says nothing."""
    if type(value) is str:
        return storable(value) or None
    return str(value) if isinstance(value, int) and whole(value) is not None else None


def whole(value: Any) -> int | None:
    """A whole number from 0 to 2^63-1, also written as digits or as a whole float; else None."""
    if type(value) is int:
        return value if 0 <= value <= _MOST else None
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    return value if isinstance(value, int) and 0 <= value <= _MOST else None


def message(text: str) -> str:
    """An error message as it is stored: one line, without tags, keys and echoes of the request, capped."""
    told = _ECHO.sub("…", storable(text[:_MOST_LOOKED_AT]))
    plain = _TAGS.sub(" ", _SCRIPTS.sub(" ", told))
    plain = _KEYS.sub("***", _BLANKS.sub(" ", plain)).strip()
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"


def parse_json(body: bytes | str) -> Any:
    """The JSON in `body`. Raises ValueError for what is none; nothing else, however odd the bytes."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # A byte order mark, NaN, lone surrogates, bytes that are no UTF-8: the lenient parser takes them.
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        return json.loads(text.lstrip("\ufeff \t\r\n"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def stops_early(error: ValueError) -> bool:
    """Whether `parse_json` met JSON that breaks off, rather than JSON that goes wrong."""
    if not isinstance(error, json.JSONDecodeError) or error.doc[:1] not in ("{", "[") or error.msg == "Extra data":
        return False
    return error.msg.startswith("Unterminated") or _HALF_A_VALUE.fullmatch(error.doc[error.pos :].rstrip()) is not None


def dump_json(value: Any) -> str:
    """Compact JSON that can be stored."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
