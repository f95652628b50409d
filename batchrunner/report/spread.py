"""How a measure is spread: quantiles and bars of any number of values, in constant space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 50
"""Buckets to a factor of e: quantiles are right to one per cent."""
LOWEST = 1e-4


class Spread:
    """Seconds that were added, by bucket."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count, self.total = 0, 0.0
        self.highest: float | None = None

    def add(self, values: pl.Series) -> None:
        known = values.drop_nulls()
        if not len(known):
            return
        self.count += len(known)
        self.total += float(known.sum())
        self.highest = max(float(known.max()), self.highest or 0.0)  # type: ignore[arg-type]
        buckets = (known.clip(lower_bound=LOWEST).log() * STEPS).round().cast(pl.Int32)
        for bucket, number in buckets.value_counts().iter_rows():
            self._counts[bucket] = self._counts.get(bucket, 0) + number

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that this share of them is not above; None where there are none."""
        left = self.count * share
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return min(math.exp(bucket / STEPS), self.highest or math.inf)
        return self.highest

    def bars(self, most: int) -> Iterator[tuple[float, float, int]]:
        """From, to, and how many: at most so many bars, of equal width on a logarithmic scale, empty ones too."""
        if not self._counts:
            return
        first, last = min(self._counts), max(self._counts)
        width = max(2, -(-(last - first + 1) // most))
        for start in range(first, last + 1, width):
            number = sum(self._counts.get(bucket, 0) for bucket in range(start, start + width))
            yield math.exp((start - 0.5) / STEPS), math.exp((start + width - 0.5) / STEPS), number
