"""Numbers, times and sums of money, written for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime

UNKNOWN = "unknown"
NONE = "-"


def money(usd: float | None) -> str:
    """Dollars, of small sums two figures that count."""
    if usd is None:
        return UNKNOWN
    if usd == 0 or usd >= 1:
        return f"${usd:,.2f}"
    digits = max(4, 1 - math.floor(math.log10(abs(usd))))
    return f"${usd:.{min(digits, 12)}f}"


def seconds(value: float | None) -> str:
    """Seconds with about three figures; minutes and hours from two minutes on."""
    if value is None:
        return NONE
    if value >= 120:
        return clock(value)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f} s"


def clock(value: float) -> str:
    """1:02:03, or 02:03 below an hour."""
    whole = round(value)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def share(part: float, whole: float) -> str:
    """Per cent; what is neither none nor all is never written as that."""
    if not whole:
        return NONE
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "<0.1 %"
    if 99.9 < value < 100:
        return ">99.9 %"
    return f"{value:.1f} %" if value % 100 else f"{value:.0f} %"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def instant(at: float) -> str:
    """A moment as the log has it, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def short(number: float) -> str:
    """A large number with three figures: 1.23 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 10 * factor or (number >= factor and factor > 1e3):
            value = number / factor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{unit}"
    return f"{number:,.0f}"
