"""Intervals by resampling: they hold what they say they hold, and the same values always give the same one."""

from __future__ import annotations

import random

import polars as pl
import pytest

from batchrunner.evaluate import Interval, difference_interval, mean_interval


def series(values: list[float]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


@pytest.mark.parametrize("cases", [40, 150])
def test_the_interval_of_a_mean_holds_it_about_95_times_of_100(cases: int):
    chance, held, trials = random.Random(7), 0, 300
    for _ in range(trials):
        found = mean_interval(series([float(chance.random() < 0.7) for _ in range(cases)]))
        assert found is not None
        held += found.low <= 0.7 <= found.high

    assert 0.90 <= held / trials <= 0.985


def test_the_interval_of_a_difference_of_strangers_holds_it_about_95_times_of_100():
    chance, held, trials = random.Random(8), 0, 300
    for _ in range(trials):
        one, other = ([chance.gauss(mean, 1) for _ in range(size)] for mean, size in ((0.5, 60), (0.2, 90)))
        found = difference_interval(series(one), series(other))
        assert found is not None
        held += found.low <= 0.3 <= found.high

    assert 0.90 <= held / trials <= 0.985


def test_it_is_as_wide_as_theory_says():
    """Of many values it is the mean plus and minus 1.96 standard errors."""
    chance = random.Random(9)
    values = series([chance.gauss(0, 1) for _ in range(2_000)])

    found = mean_interval(values)

    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(values.std()) / 2_000**0.5, rel=0.06)


def test_the_same_values_give_the_same_interval():
    values = series([0.0, 1.0, 0.5, 1.0, 0.25])

    assert mean_interval(values) == mean_interval(values)
    assert difference_interval(values, values) == difference_interval(values, values)


def test_two_groups_of_strangers_are_drawn_apart():
    """Drawn alike, a group less itself would always be nothing."""
    values = series([0.0, 1.0] * 20)

    found = difference_interval(values, values)

    assert found is not None
    assert found.high - found.low > 0.3


def test_too_few_values_have_no_interval():
    assert mean_interval(series([])) is None
    assert mean_interval(series([1.0])) is None
    assert difference_interval(series([1.0]), series([1.0, 0.0])) is None


def test_values_that_are_all_alike_have_an_interval_of_no_width():
    assert mean_interval(series([0.5] * 10)) == Interval(low=0.5, high=0.5)


def test_whether_zero_is_left_out():
    assert Interval(low=0.1, high=0.2).excludes_zero
    assert Interval(low=-0.2, high=-0.1).excludes_zero
    assert not Interval(low=0.0, high=0.2).excludes_zero
    assert not Interval(low=-0.1, high=0.1).excludes_zero


def test_a_hundred_thousand_values_take_a_moment():
    """The number of draws falls with the number of cases: the interval is still there, and narrow."""
    found = mean_interval(series([float(number % 2) for number in range(100_000)]))

    assert found is not None
    assert 0 < found.high - found.low < 0.01
