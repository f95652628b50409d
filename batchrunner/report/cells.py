"""How much room text takes on a terminal: most letters a column, those of East Asia and pictures two."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDE = "WF"
_LEAST_WITHIN = 7


def width(text: str) -> int:
    """Columns; what joins the letter before it counts too, for not every terminal joins it."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as fits with a sign that it goes on."""
    if width(text) <= most:
        return text
    return f"{next(_pieces(text, most - 1), '')}…" if most > 0 else ""


def cut_within(text: str, most: int) -> str:
    """The text, or its beginning and its end: names of a kind differ in either."""
    if width(text) <= most or most < _LEAST_WITHIN:
        return cut(text, most)
    begin = next(_pieces(text, (most - 1) // 2), "")
    end = next(_pieces(text[::-1], most - 1 - width(begin)), "")[::-1]
    return f"{begin}…{end}"


def wrapped(text: str, most: int) -> list[str]:
    """The text in lines, broken between words where that is possible."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if width(joined) <= most:
            lines[-1] = joined
        else:
            lines += _pieces(word, most)
    return [line for line in lines if line]


def _pieces(word: str, most: int) -> Iterator[str]:
    """The word in pieces that fit; none where not even a letter does."""
    start, room = 0, most
    for at, char in enumerate(word):
        columns = _columns(char)
        if columns > most:
            return
        if columns > room:
            yield word[start:at]
            start, room = at, most
        room -= columns
    yield word[start:]


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
