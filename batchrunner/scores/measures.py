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
_LONGEST = 100_000
"""Characters of an answer in which a number is looked for, from its end."""


def part(text: str, field: str | None) -> Any:
    """What an answer says: its text, or with a `field` (dotted, list positions as numbers) that part of its JSON."""
    if field is None:
        return text
    found = [*candidates(text)]
    value = next((each for each in found if isinstance(each, dict | list)), found[0] if found else NOTHING)
    for step in field.split("."):
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
    """The same words, whatever their case, punctuation, width and spacing."""
    return float(any(_plain(written(said)) == _plain(written(each)) for each in _each(expected)))


def contains(said: Any, expected: Any, spec: ScoreSpec) -> float:
    """Each expected text is in the answer."""
    text, wanted = written(said), [written(each) for each in _each(expected)]
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
    if not isinstance(value, str) and isinstance(expected, str):
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
        said = str(error).strip().splitlines()[-1].removeprefix("error: ")
        raise JobError(f"score {spec.name!r}: pattern: {said}; lookaround and back-references are not known") from None


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
    numbers = _NUMBER.findall(value[-_LONGEST:])
    return numeric(float(numbers[-1].replace(",", ""))) if numbers else None


def verdict(text: str, field: str | None) -> float | None:
    """What a judge's answer says: the number at `field` of its JSON, else the only number in its text."""
    said = part(text, field)
    if isinstance(said, str) and len(_NUMBER.findall(said[-_LONGEST:])) != 1:
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


def _plain(text: str) -> str:
    wide = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if unicodedata.category(each)[0] == "P" else each for each in wide).split())


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
