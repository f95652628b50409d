"""Intervals of means and of differences between them, by drawing the cases again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DRAWS, FEWEST = 2_000, 200
WORK = 40_000_000
"""About how many numbers are drawn in all: of very many cases fewer draws do."""
AT_ONCE = 2_000_000
LOW, HIGH = 0.025, 0.975
FEW = 2
"""An interval needs at least so many cases."""


def intervals(cases: pl.DataFrame, differences: Mapping[str, tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """For each column the interval that holds its mean 95 times of 100, and for each difference of two columns the
    one of that. `cases` has a row per case, null where it was not measured. The same cases give the same interval.

    Each draw takes as many cases, with replacement, so what goes together in a case stays together.
    """
    known = {name: cases[name].count() for name in cases.columns}
    if not known or len(cases) < FEW:
        return {}
    means = _means_of_draws(cases)
    columns = {name: means[name] for name, count in known.items() if count >= FEW}
    for name, (one, other) in differences.items():
        if known[one] >= FEW and known[other] >= FEW:
            columns[name] = means[one] - means[other]
    return {name: found for name, values in columns.items() if (found := _middle(values)) is not None}


def _means_of_draws(cases: pl.DataFrame) -> pl.DataFrame:
    """The mean of each column in each draw, some draws at a time."""
    count = len(cases)
    left = max(FEWEST, min(DRAWS, WORK // (count * max(1, len(cases.columns)))))
    numbers, means = pl.int_range(count, dtype=pl.UInt32, eager=True), []
    while left > 0:
        some = min(left, max(1, AT_ONCE // count))
        picked = numbers.sample(n=some * count, with_replacement=True, seed=left)
        means.append(
            pl.DataFrame({name: cases[name].gather(picked).reshape((some, count)).arr.mean() for name in cases.columns})
        )
        left -= some
    return pl.concat(means)


def _middle(values: pl.Series) -> tuple[float, float] | None:
    low, high = values.quantile(LOW, "linear"), values.quantile(HIGH, "linear")
    return None if low is None or high is None else (low, high)


def paired(cases: pl.DataFrame, pairs: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    """The cases with a further column for each pair of columns: their difference, null where either is."""
    return cases.with_columns((pl.col(one) - pl.col(other)).alias(name) for name, one, other in pairs)
