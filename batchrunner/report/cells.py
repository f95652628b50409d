"""How much room text takes on a terminal: most letters a column, those of East Asia and pictures two."""

from __future__ import annotations

import textwrap
import unicodedata

_WIDE = "WF"
_FILLER = "\0"
"""Stands behind a wide letter while lines are broken; no text that is clean holds it."""


def width(text: str) -> int:
    """Columns; what joins the letter before it counts too, for not every terminal joins it."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as fits with a sign that it goes on."""
    if width(text) <= most:
        return text
    kept, room = "", most - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        kept += char
    return f"{kept}…" if most > 0 else ""


def wrapped(text: str, most: int) -> list[str]:
    """The text in lines, broken between words where that is possible."""
    filled = "".join(char + _FILLER if _columns(char) == 2 else char for char in text)
    return [line.replace(_FILLER, "") for line in textwrap.wrap(filled, most)]


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
