"""How the simulator's limits count, with the clock as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.simulator.allowance import Allowance, Bucket


@given(per_minute=st.floats(1, 60_000), jitters=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=200))
def test_an_even_sender_is_never_refused_for_its_jitter(per_minute: float, jitters: list[float]) -> None:
    allowance = Allowance(per_minute, None, now=0.0)
    times = sorted(1.0 + number * 60 / per_minute + jitter for number, jitter in enumerate(jitters))

    refused = [at for at in times if allowance.take(0, now=at)]

    assert refused == []


@settings(max_examples=30, deadline=None)
@given(per_minute=st.floats(10, 3_000), times_over=st.integers(3, 10))
def test_a_greedy_sender_gets_the_allowance_and_one_second_on_top(per_minute: float, times_over: int) -> None:
    allowance, step_s = Allowance(per_minute, None, now=0.0), 60 / per_minute / times_over

    admitted = sum(allowance.take(0, now=number * step_s) is None for number in range(int(60 / step_s)))

    assert 0.97 * per_minute - 1 <= admitted <= per_minute + max(1.0, per_minute / 60) + 1


def test_the_opening_burst_of_a_minute_is_refused() -> None:
    allowance = Allowance(600, None, now=0.0)

    admitted = sum(allowance.take(0, now=0.0) is None for _ in range(600))

    assert admitted == 10


def test_a_low_limit_lets_one_through_at_once() -> None:
    allowance = Allowance(30, None, now=0.0)

    assert [allowance.take(0, now=0.0) is None for _ in range(3)] == [True, False, False]


def test_who_waits_as_told_is_admitted() -> None:
    allowance = Allowance(60, None, now=0.0)
    allowance.take(0, now=0.0)
    shortfall = allowance.take(0, now=0.1)

    assert shortfall is not None
    assert allowance.take(0, now=0.1 + shortfall.wait_s + 1e-9) is None


def test_refused_requests_cost_nothing() -> None:
    allowance = Allowance(600, 6_000, now=0.0)
    for _ in range(1_000):
        allowance.take(10, now=0.0)

    before = [standing.remaining for standing in allowance.standings()]
    allowance.take(10, now=0.0)

    assert [standing.remaining for standing in allowance.standings()] == before


def test_a_request_larger_than_a_second_of_tokens_goes_and_leaves_a_debt() -> None:
    allowance = Allowance(None, 6_000, now=0.0)

    assert allowance.take(1_000, now=0.0) is None
    shortfall = allowance.take(1_000, now=0.0)

    assert shortfall is not None
    assert shortfall.kind == "tokens"
    assert shortfall.wait_s == pytest.approx((1_000 - 0.25 * 100) / 100)


def test_tokens_are_settled_to_what_was_used() -> None:
    allowance = Allowance(None, 6_000, now=0.0)
    allowance.take(90, now=0.0)

    allowance.settle(reserved=90, used=30)

    assert [standing.remaining for standing in allowance.standings()] == [70]


@given(amounts=st.lists(st.integers(1, 5_000), min_size=20, max_size=200))
def test_the_long_term_token_rate_is_exact_whatever_the_amounts(amounts: list[int]) -> None:
    bucket, now = Bucket("tokens", 60_000, now=0.0), 0.0
    for amount in amounts:
        now += bucket.wait_s(amount, now=now)
        bucket.take(amount)

    assert now == pytest.approx(max(0.0, (sum(amounts[:-1]) - 1_000) / 1_000), abs=1.0)
