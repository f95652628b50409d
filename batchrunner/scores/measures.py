"""Single answers held against what was expected: 1.0 or 0.0, None where nothing was expected."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any, SupportsFloat

import orjson

from batchrunner.errors import JobError
from batchrunner.expect import candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.spec import ScoreSpec

NOTHING = object()
"""What an answer has at a path that it does not have."""
_NUMBER = re.compile(
    r"(?:(?<![\w.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII
)
_QUIET = re.compile("['\u2019\u00ad\u200b-\u200d\ufeff]")
"""Apostrophes, and characters that nobody sees."""
_GROUPED = re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009'\u2019]|\\,|\{,\})(?=\d{3}(?!\d))")
_SIGN = re.compile(r"([-+])[$\u20ac\u00a3](?=[\d.])")
_LONGEST = 100_000
"""Characters of an answer in which a number is looked for, from its end."""


def part(text: str, field: str | None) -> Any:
    """What an answer says: its text, or with a `field` (dotted, list positions as numbers) that part of its JSON, the
    last one that has it: what was revised stands behind its draft."""
    if field is None:
        return text
    steps = field.split(".")
    return next(
        (value for found in reversed([*candidates(text)]) if (value := _at(found, steps)) is not NOTHING), NOTHING
    )


def _at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, NOTHING)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return NOTHING
    return value


def exact(said: Any, expected: Any, _: ScoreSpec) -> float:
    """The same text but for space around it; one of several texts where a list is expected."""
    return float(any(written(said).strip() == written(each).strip() for each in _each(expected)))


def normalised(said: Any, expected: Any, _: ScoreSpec) -> float:
    """The same words and numbers, whatever their case, punctuation, width and spacing."""
    return float(any(_alike(written(said), written(each)) for each in _each(expected)))


def contains(said: Any, expected: Any, spec: ScoreSpec) -> float:
    """Each expected text is in the answer."""
    text = unicodedata.normalize("NFC", written(said))
    wanted = [unicodedata.normalize("NFC", written(each)) for each in _each(expected)]
    if spec.ignore_case:
        text, wanted = text.casefold(), [each.casefold() for each in wanted]
    return float(all(each in text for each in wanted))


def number(said: Any, expected: Any, spec: ScoreSpec) -> float | None:
    """The last number of the answer is the expected one, within the tolerance."""
    wanted, found = numeric(expected), numeric(said)
    if wanted is None:
        return None
    allowed = spec.tolerance if isinstance(spec.tolerance, float) else abs(wanted) * spec.share
    return float(found is not None and abs(found - wanted) <= allowed + 1e-12 * abs(wanted))


def json(said: Any, expected: Any, spec: ScoreSpec) -> float:
    """The same JSON value, numbers by what they are worth."""
    value = said if spec.field is not None else next(candidates(said), NOTHING)
    if isinstance(expected, str) and not _same(value, expected):
        try:
            expected = orjson.loads(expected)
        except ValueError:
            return 0.0
    return float(_same(value, expected))


def regex(texts: Sequence[str | None], spec: ScoreSpec) -> list[Any]:
    """Of each text what the pattern found; where something is expected its first group, if that took part.

    By an engine whose time grows with the text alone, whatever the pattern.
    """
    import polars as pl

    series, pattern = pl.Series(texts, dtype=pl.String), spec.pattern or ""
    try:
        whole = series.str.extract(pattern, 0)
        if spec.expected is None or not series.str.extract_groups(pattern).struct.fields:
            return whole.to_list()
        return [one or other for one, other in zip(series.str.extract(pattern, 1), whole, strict=True)]
    except pl.exceptions.PolarsError as error:
        told = [line.removeprefix("error: ") for line in str(error).splitlines() if line.startswith("error: ")]
        said = told[-1] if told else str(error).strip().splitlines()[0]
        raise JobError(f"score.{spec.name}.pattern: {spec.pattern!r}: {said}") from None


def numeric(value: Any) -> float | None:
    """A value as a number: yes and no as 1 and 0, of a text the last number in it; None where there is none."""
    if isinstance(value, bool | int | float):
        try:
            found = float(value)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    if not isinstance(value, str):
        try:
            return numeric(float(value)) if isinstance(value, SupportsFloat) else None
        except (TypeError, ValueError, OverflowError):
            return None
    numbers = _numbers(value)
    return numeric(float(numbers[-1].replace(",", ""))) if numbers else None


def _numbers(text: str) -> list[str]:
    """The numbers in a text as English writes them, with whatever else groups their digits or is their minus."""
    tail = text[-_LONGEST:]
    if not tail.isascii():
        tail = "".join(str(unicodedata.decimal(char, char)) for char in tail).replace("\u2212", "-")
    return _NUMBER.findall(_SIGN.sub(r"\1", _GROUPED.sub("", tail)))


def verdict(text: str, field: str | None) -> float | None:
    """What a judge's answer says: the number at `field` of its JSON, else the only number in its text."""
    said = part(text, field)
    if isinstance(said, str) and len(_numbers(said)) != 1:
        return None
    return numeric(said)


def written(value: Any) -> str:
    """A value as text: what an answer lacks is an empty one."""
    if value is NOTHING or value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | dict | list):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def _each(expected: Any) -> Sequence[Any]:
    return expected if isinstance(expected, list) else [expected]


def _alike(one: str, other: str) -> bool:
    plain = _plain(one), _plain(other)
    return plain[0] == plain[1] if any(plain) else one.strip() == other.strip()


def _plain(text: str) -> str:
    """Without case, punctuation and marks of formatting; with what makes a number or a name another one."""
    wide = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    found = _QUIET.sub("", wide)
    kept = (found[at] if _counts(found, at) else " " for at in range(len(found)))
    return " ".join("".join(kept).split())


def _counts(text: str, at: int) -> bool:
    char, before, behind = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if char in ".,":
        return before.isdigit() and behind.isdigit()
    if char == "-":
        return behind.isdigit() and not before.isalnum()
    if char in "#%":
        return before.isalnum()
    return char not in "`|~^" and unicodedata.category(char)[0] != "P"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    plain = str | int | float | None
    return bool(one == other) or (not isinstance(other, plain) and written(one) == written(other))


MEASURES = {"exact": exact, "normalised": normalised, "contains": contains, "number": number, "json": json}
