"""Numbers, times and foreign text, written for people."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str, *, keep_lines: bool = False) -> str:
    """`text` without control, escape and bidirectional characters: safe on a terminal."""
    kept = "\n\t" if keep_lines else ""
    return "".join(c for c in text if c in kept or (unicodedata.category(c) != "Cc" and c not in _BIDI))


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def clock(seconds: float) -> str:
    """Hours and minutes and seconds as 01:02:03, without hours below one hour."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours:02}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def brief(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 120 else clock(seconds)


def money(usd: float | None) -> str:
    if usd is None:
        return "cost unknown"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:,.4f}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
