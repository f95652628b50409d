"""The range of what the rest will use holds as often as it says, and is no wider than it must be."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import TYPE_CHECKING

import pytest

from batchrunner.limits.forecast import Range, forecast, rest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Use = Callable[[Random, float], float]

TRIALS = 400


def alike(chance: Random, size: float) -> float:
    return size * chance.lognormvariate(0, 0.5)


def long_tailed(chance: Random, size: float) -> float:
    return size * chance.lognormvariate(0, 1.2)


def short_or_long(chance: Random, size: float) -> float:
    return size * chance.lognormvariate(0, 0.4) * (8 if chance.random() < 0.2 else 1)


def partly_rejected(chance: Random, size: float) -> float:
    return 0.0 if chance.random() < 0.15 else size * chance.lognormvariate(0, 0.8)


def trials(use: Use, *, rest: int, seen: int = 20, size_sigma: float = 0.5) -> Iterator[tuple[Range, float]]:
    """Ranges for the rest of inputs of varied size, each with what the rest really used."""
    chance = Random(f"{use.__name__} {rest} {seen}")
    for _ in range(TRIALS):
        sizes = [chance.lognormvariate(0, size_sigma) for _ in range(seen + rest)]
        used = [use(chance, size) for size in sizes]
        told = forecast(used[:seen], sizes[:seen], rest_of(sizes[seen:], rest))
        yield told, sum(used[seen:])


@pytest.mark.parametrize("rest", [10, 200])
@pytest.mark.parametrize("use", [alike, long_tailed, short_or_long, partly_rejected])
def test_the_rest_is_within_the_range_nineteen_times_in_twenty(use: Use, rest: int) -> None:
    held = sum(told.at_least <= real <= told.at_most for told, real in trials(use, rest=rest))

    assert held / TRIALS >= 0.92


@pytest.mark.parametrize(("seen", "widest"), [(20, 2.6), (200, 1.4)])
def test_the_range_is_no_wider_than_it_must_be(seen: int, widest: float) -> None:
    found = [told for told, _ in trials(alike, rest=500, seen=seen)]

    assert median(told.at_most / told.at_least for told in found) < widest


def test_the_expected_value_is_right_on_average() -> None:
    found = [*trials(long_tailed, rest=200)]

    assert sum(told.expected for told, _ in found) == pytest.approx(sum(real for _, real in found), rel=0.06)


def test_a_few_items_that_cost_nearly_all_make_the_range_wide() -> None:
    sizes = [1.0] * 18 + [100.0, 150.0]
    used = [1.0] * 18 + [90.0, 190.0]

    told = forecast(used, sizes, rest_of(sizes * 5, 100))

    assert told.at_most > 1.5 * told.expected


def test_items_all_alike_leave_a_narrow_range_and_never_none() -> None:
    told = forecast([3.0] * 20, [2.0] * 20, rest_of([2.0] * 100, 100))

    assert told.expected == pytest.approx(300)
    assert 295 < told.at_least < 300 < told.at_most < 305


def test_a_size_scaled_up_from_a_sample_makes_the_range_wider() -> None:
    chance = Random(1)
    sizes = [chance.lognormvariate(0, 1) for _ in range(50)]

    whole, sample = (forecast([2.0 * s for s in sizes], sizes, rest_of(sizes, items)) for items in (50, 5000))

    assert sample.expected == pytest.approx(100 * whole.expected)
    assert sample.at_most / sample.expected > 1.2 * whole.at_most / whole.expected


@pytest.mark.parametrize(("used", "open_items"), [([0.0] * 20, 5), ([1.0] * 20, 0)])
def test_nothing_is_expected_where_nothing_was_used_or_nothing_is_open(used: list[float], open_items: int) -> None:
    told = forecast(used, [1.0] * 20, rest_of([1.0] * open_items, open_items))

    assert told == Range(expected=0.0, at_least=0.0, at_most=0.0)


def test_one_open_item_of_a_wild_run_has_a_range_in_numbers() -> None:
    used = [0.001] * 19 + [1000.0]

    told = forecast(used, [1.0] * 20, rest_of([1.0], 1))

    assert 0 <= told.at_least < told.expected < told.at_most < 100 * told.expected
