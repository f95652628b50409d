"""Limits in reply headers: every form that servers write them in, and none that makes the reading fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.providers.reading.allowance import read_allowance, reset_s

DATE = "Fri, 20 Nov 2026 18:00:00 GMT"


@pytest.mark.parametrize(
    ("told", "seconds", "by_clock"),
    [
        ("2s", 2.0, False),
        ("6ms", 0.006, False),
        ("1m30s", 90.0, False),
        ("6m0s", 360.0, False),
        ("7.66s", 7.66, False),
        ("2m59.56s", 179.56, False),
        ("1h2m3s", 3723.0, False),
        ("1d", 86_400.0, False),
        ("12", 12.0, False),
        (" 0.5 ", 0.5, False),
        ("0", 0.0, False),
        ("2026-11-20T18:00:09+00:00", 9.0, True),
        ("2026-11-20T18:00:09.500Z", 9.5, True),
        ("2026-11-20T19:00:09+01:00", 9.0, True),
        ("Fri, 20 Nov 2026 18:00:09 GMT", 9.0, True),
        ("1795197609", 9.0, True),
        ("1795197609000", 9.0, True),
        ("2026-11-20T17:00:00Z", 0.0, True),
    ],
)
def test_a_reset_is_read_in_every_form(told, seconds, by_clock):
    assert reset_s(told, DATE) == (pytest.approx(seconds), by_clock)


@pytest.mark.parametrize("told", ["", "soon", "-1", "1m30", "nan", "inf", "1e3", "1_000", "٣s", "s", "1x", "9" * 40])
def test_what_is_no_reset_is_none(told):
    assert reset_s(told, DATE) is None


def test_without_a_date_our_own_clock_counts():
    soon = datetime.now(UTC) + timedelta(seconds=30)

    seconds, by_clock = reset_s(soon.isoformat(), None) or (0.0, False)

    assert (seconds, by_clock) == (pytest.approx(30.0, abs=2.0), True)


def test_headers_that_say_nothing_of_limits_are_passed_over():
    assert read_allowance({"content-type": "application/json", "retry-after": "3"}) is None


def test_limits_and_what_is_left_are_read():
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-remaining-tokens": "17",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-reset-tokens": "6m0s",
    }

    assert read_allowance(headers) == (500, 200_000, pytest.approx(0.12), False)


def test_the_longest_hold_of_several_counts():
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "3s",
    }

    assert read_allowance(headers) == (None, None, 3.0, False)


def test_a_limit_without_a_period_is_not_taken_for_a_minutes():
    headers = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "4"}

    assert read_allowance(headers) == (None, None, 4.0, False)


@pytest.mark.parametrize("limit", ["unlimited", "-1", "0", "", "1.5", "1e9"])
def test_a_limit_that_is_none_is_none(limit):
    assert read_allowance({"x-ratelimit-limit-requests": limit}) == (None, None, None, False)


NAMES = [f"x-ratelimit-{what}{of}" for what in ("limit", "remaining", "reset") for of in ("", "-requests", "-tokens")]


@given(headers=st.dictionaries(st.sampled_from([*NAMES, "date"]), st.text(max_size=30) | st.just("0")))
def test_no_header_makes_the_reading_fail(headers):
    found = read_allowance(headers)

    assert found is None or found.hold_s is None or found.hold_s >= 0
