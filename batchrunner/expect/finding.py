"""The JSON in an answer: alone, in a fence, or with prose around it. Pure, and in bounded time."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CHARS = 4 * 2**20
"""A longer text holds no answer that fits a table."""
MOST_STARTS = 32
"""So many places are looked at where an object or a list may begin."""
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_START = re.compile(r"[{\[]")


def candidates(text: str) -> Iterator[Any]:
    """The JSON values that a text may mean, the likeliest first."""
    whole = text.strip().lstrip("\ufeff").strip()
    if not whole or len(whole) > MOST_CHARS:
        return
    try:
        yield orjson.loads(whole)
        return
    except ValueError:
        pass
    for number, fence in enumerate(_FENCE.finditer(whole)):
        if number == MOST_STARTS:
            break
        try:
            yield orjson.loads(fence[1].strip())
        except ValueError:
            continue
    yield from _in_prose(whole)


def _in_prose(text: str) -> Iterator[Any]:
    at = 0
    for _ in range(MOST_STARTS):
        found = _START.search(text, at)
        if found is None:
            return
        try:
            value, at = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.start() + 1
        else:
            yield value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
