"""How sure a mean is: percentile intervals by drawing the same cases again and again. Same values, same interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DRAWS, FEWEST_DRAWS = 2_000, 200
WORK = 20_000_000
"""About so many values are drawn for an interval: of very many cases fewer draws are as good."""
AT_ONCE = 1_000_000
FEWEST_CASES = 2
LOW, HIGH = 0.025, 0.975
DUST = 1e-9
"""Of adding up: no difference."""
SEEDS = (8_794, 1_117_000)
"""Two sets of draws that have nothing to do with each other, for groups that have no case in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Of 95 in 100 intervals like this one, what was measured lies inside."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > DUST or self.high < -DUST


def mean_interval(values: pl.Series) -> Interval | None:
    """Of the mean of one value a case, without nulls; None where there are too few."""
    return _middle(_means(values, SEEDS[0])) if len(values) >= FEWEST_CASES else None


def difference_interval(one: pl.Series, other: pl.Series) -> Interval | None:
    """Of the difference of two means, `one` less `other`, of cases that have nothing to do with each other.

    Where both have the same cases, the interval is that of the mean of the differences by case.
    """
    if min(len(one), len(other)) < FEWEST_CASES:
        return None
    draws = min(_draws(len(one)), _draws(len(other)))
    return _middle(_means(one, SEEDS[0], draws) - _means(other, SEEDS[1], draws))


def _draws(cases: int) -> int:
    return max(FEWEST_DRAWS, min(MOST_DRAWS, WORK // cases))


def _means(values: pl.Series, seed: int, draws: int | None = None) -> pl.Series:
    """The mean of each draw, that takes as many values as there are, with replacement."""
    return pl.concat([*_drawn(values.cast(pl.Float64), seed, draws or _draws(len(values)))])


def _drawn(values: pl.Series, seed: int, draws: int) -> Iterator[pl.Series]:
    number = len(values)
    step = max(1, AT_ONCE // number)
    for first in range(0, draws, step):
        count = min(step, draws - first)
        drawn = values.sample(n=number * count, with_replacement=True, seed=seed + first)
        yield drawn.reshape((count, number)).arr.mean()


def _middle(means: pl.Series) -> Interval:
    low, high = (means.quantile(share, "linear") for share in (LOW, HIGH))
    assert low is not None
    assert high is not None
    return Interval(low=low, high=high)
