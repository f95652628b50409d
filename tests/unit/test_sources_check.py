"""How the checking pass finds what appears twice among ten million ids without holding them."""

from __future__ import annotations

import random
from array import array
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchrunner.sources._check import _shared

INT64 = st.integers(-(2**63), 2**63 - 1)


def twice(numbers: list[int]) -> list[int]:
    counts = Counter(numbers)
    return [position for position, number in enumerate(numbers) if counts[number] > 1]


@given(st.lists(INT64 | st.integers(-3, 3), max_size=30))
def test_positions_of_repeated_numbers_are_found(numbers):
    assert _shared(array("q", numbers)).to_pylist() == twice(numbers)


def test_repeats_far_apart_are_found():
    draw = random.Random(7)
    numbers = [draw.getrandbits(63) for _ in range(2_200_000)]
    numbers[2_100_000], numbers[1_500_000], numbers[1_500_001] = numbers[3], numbers[1 << 20], -5

    assert _shared(array("q", numbers)).to_pylist() == [3, 1 << 20, 1_500_000, 2_100_000]
