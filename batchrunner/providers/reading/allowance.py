"""What a reply's headers say of the key's limits, in each form that servers write them in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from batchrunner.providers.reading.waits import instant

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHOLE = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_PARTS = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|us|µs|ns|d|h|m|s)")
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ZERO = "0 \t"
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
"""A number from here on is an instant since 1970 rather than a number of seconds."""


class Allowance(NamedTuple):
    """Limits a minute, and how long nothing is left of one of them."""

    requests: int | None
    tokens: int | None
    hold_s: float | None
    by_clock: bool
    """The hold ends at an instant that the server named; `hold_s` counts from the reply then, else from the request."""


def read_allowance(headers: Mapping[str, str]) -> Allowance | None:
    """None where the headers say nothing of limits.

    `x-ratelimit-limit-requests` and `-tokens` are a minute's, as OpenAI, Azure and their likes define them. A
    plain `x-ratelimit-limit` names no period, so that only its `remaining` and `reset` are used.
    """
    get = headers.get
    requests, tokens = get("x-ratelimit-limit-requests"), get("x-ratelimit-limit-tokens")
    requests_left, tokens_left = get("x-ratelimit-remaining-requests"), get("x-ratelimit-remaining-tokens")
    left = get("x-ratelimit-remaining")
    if requests is None and tokens is None and requests_left is None and tokens_left is None and left is None:
        return None
    holds = [
        hold
        for name, value in (("-requests", requests_left), ("-tokens", tokens_left), ("", left))
        # Most of them are no zero by their first character.
        if value and value[0] in _ZERO and (hold := _hold(headers, name, value)) is not None
    ]
    hold_s, by_clock = max(holds) if holds else (None, False)
    return Allowance(_limit(requests), _limit(tokens), hold_s, by_clock)


def _hold(headers: Mapping[str, str], name: str, left: str) -> tuple[float, bool] | None:
    told = headers.get(f"x-ratelimit-reset{name}")
    return reset_s(told, headers.get("date")) if told is not None and _count(left) == 0 else None


def reset_s(told: str, date: str | None) -> tuple[float, bool] | None:
    """Seconds, and whether they were told as an instant; by the reply's own date then, else by our clock."""
    told = told.strip()
    seconds = _duration_s(told)
    if seconds is not None and seconds < _EPOCH_S:
        return seconds, False
    then = _instant_s(told, seconds)
    if then is None:
        return None
    now = (instant(date) if date else None) or datetime.now(UTC)
    return max(0.0, then - now.timestamp()), True


def _duration_s(told: str) -> float | None:
    if _NUMBER.fullmatch(told):
        return float(told)
    parts = _PARTS.findall(told)
    if not parts or "".join(number + unit for number, unit in parts) != told:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _instant_s(told: str, number: float | None) -> float | None:
    if number is not None:
        return number / 1000 if number >= _EPOCH_MS else number
    try:
        found = datetime.fromisoformat(told)
    except ValueError:
        found_or_none = instant(told)
        return None if found_or_none is None else found_or_none.timestamp()
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@lru_cache(maxsize=64)
def _limit(told: str | None) -> int | None:
    """A limit above 0; None for whatever is none."""
    return (_count(told) or None) if told is not None else None


def _count(told: str) -> int | None:
    told = told.strip()
    return int(told) if _WHOLE.fullmatch(told) else None
