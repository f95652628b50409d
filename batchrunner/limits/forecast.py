"""What the rest of a run will use, told from what a part of it has used: an expected value and how sure it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchrunner.records import fact

if TYPE_CHECKING:
    from collections.abc import Sequence

_Z = 1.96
"""A range holds in about 95 of 100 cases."""
_LEAST_SPREAD = 0.01
"""However alike the items seen are, the rest may differ a little."""
_SKEW_WIDENS, _MOST_SKEW = 1.5, 4.0
"""Few items of a long tail show too little of it: what is seen of it pushes the upper end out."""


@fact(frozen=True, slots=True, kw_only=True)
class Range:
    expected: float
    at_least: float
    at_most: float


@fact(frozen=True, slots=True, kw_only=True)
class Rest:
    """What is still open, by a size that is about proportional to what it will use."""

    items: int
    size: float
    """Of all items together."""
    size_variance: float
    """Of the size relative to itself: it is scaled up where only some of the items were looked at."""


def rest_of(sizes: Sequence[float], items: int) -> Rest:
    """`items` open items, of which some have these sizes."""
    looked_at = len(sizes)
    mean = math.fsum(sizes) / looked_at if looked_at else 0.0
    unseen = 1 - looked_at / items if items > looked_at > 1 and mean else 0.0
    variance = math.fsum((size / mean - 1) ** 2 for size in sizes) / (looked_at - 1) / looked_at if unseen else 0.0
    return Rest(items=items, size=mean * items, size_variance=variance * unseen)


def forecast(used: Sequence[float], sizes: Sequence[float], rest: Rest) -> Range:
    """What the rest will use, from what two or more items of these sizes did.

    The expected value is a ratio estimate. The range is a prediction interval for the sum over the rest: the error of
    the ratio, by residuals as the jackknife has them, and the spread of the rest itself. It is made on a logarithmic
    scale above the expected value and half on one below, since uses are skewed. Few large items count as few.
    """
    n, total, whole = len(used), math.fsum(used), math.fsum(sizes)
    if not (total and whole and rest.items):
        return Range(expected=0.0, at_least=0.0, at_most=0.0)
    expected = total / whole * rest.size
    residuals = _residuals(used, sizes)
    variance = math.fsum(e * e for e in residuals) / n / (total / n) ** 2
    effective = whole * whole / math.fsum(size * size for size in sizes)
    error = math.sqrt(variance * (1 / n + 1 / rest.items) + rest.size_variance)
    spread = max(_LEAST_SPREAD, _quantile(effective - 1) * error)
    up = spread * (1 + _SKEW_WIDENS * min(max(_skew(residuals), 0.0), _MOST_SKEW) / math.sqrt(n))
    return Range(
        expected=expected,
        at_least=expected * (math.exp(-spread) + max(0.0, 1 - spread)) / 2,
        # Beyond e times the expected value the exponential goes on as its tangent: few items, huge spread.
        at_most=expected * (math.exp(up) if up < 1 else math.e * up),
    )


def misfit(used: Sequence[float], sizes: Sequence[float]) -> float:
    """How badly the sizes tell what the items used."""
    return math.fsum(e * e for e in _residuals(used, sizes))


def _residuals(used: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """What each item used beyond what the others let expect."""
    whole = math.fsum(sizes)
    if not whole:
        return list(used)
    ratio = math.fsum(used) / whole
    # An item that makes nearly all of the whole is expected by nothing but itself: its weight is bounded.
    return [(each - ratio * size) / (1 - min(0.9, size / whole)) for each, size in zip(used, sizes, strict=True)]


def _skew(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    cubes = math.fsum((value - mean) ** 3 for value in values) / len(values)
    return cubes / variance**1.5 if variance > 0 else 0.0


def _quantile(degrees: float) -> float:
    """Student's t for two-sided 95 %, by its expansion around the normal; below three degrees as for three."""
    z, v = _Z, max(3.0, degrees)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
