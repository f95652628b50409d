"""How long a server asks to wait."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOR_EVER_S = 1e30
_NUMBER = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?")


def hint_s(headers: Mapping[str, str], body: Any) -> float | None:
    """Seconds from `retry-after-ms`, `Retry-After` (number or date) or the body's `retry_after`; None for no hint.

    Zero, the past and whatever is no time mean none: backing off is the caller's own business then.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds:
        return milliseconds / 1000
    told = headers.get("retry-after")
    if told is not None and (seconds := _number(told) or _until(told, headers.get("date"))):
        return seconds
    return _in_body(body)


def _in_body(body: Any) -> float | None:
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    for holder in (body, error if isinstance(error, dict) else {}):
        value = holder.get("retry_after")
        seconds = value if isinstance(value, int | float) and not isinstance(value, bool) else _number(value)
        if seconds is not None and 0 < seconds < _FOR_EVER_S:
            return float(seconds)
    return None


def _number(value: Any) -> float | None:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    return float(value) or None


def _until(told: str, date: str | None) -> float | None:
    """Seconds from the reply's own date, else from now, to an HTTP date."""
    then = instant(told)
    if then is None:
        return None
    now = (instant(date) if date else None) or datetime.now(UTC)
    seconds = (then - now).total_seconds()
    return seconds if seconds > 0 else None


def instant(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # An asctime date has no zone; the standard says that it is GMT.
    return found if found.tzinfo else found.replace(tzinfo=UTC)
