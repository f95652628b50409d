"""Whether and how long: by verdict, hint and count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import RequestError
from batchrunner.retry import Backoff


def error(**changes: object) -> RequestError:
    facts = {"verdict": "retry", "error_type": "server"} | changes
    return RequestError("busy", **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("verdict", ["reject", "defer", "abort"])
def test_only_the_verdict_retry_is_tried_again(verdict):
    assert Backoff(attempts=5).wait_s(error(verdict=verdict), failures=1) is None


def test_attempts_are_bounded():
    waits = [Backoff(attempts=3).wait_s(error(), failures=n) for n in (1, 2, 3)]

    assert [wait is None for wait in waits] == [False, False, True]


def test_rate_limits_are_not_bounded_by_attempts():
    assert Backoff(attempts=3).wait_s(error(error_type="rate_limit"), failures=50) is not None


def test_a_lack_of_files_is_not_bounded_by_attempts():
    assert Backoff(attempts=3).wait_s(error(error_type="connection", scope="machine"), failures=3) is not None


def test_an_unreadable_reply_is_tried_again_twice():
    backoff = Backoff(attempts=9)

    waits = [backoff.wait_s(error(error_type="truncated"), failures=n, unreadable=n) for n in (1, 2, 3)]

    assert [wait is None for wait in waits] == [False, False, True]


@given(hint=st.floats(0.01, 300), share=st.floats(0, 1))
def test_a_hint_is_obeyed_and_never_undercut(hint, share):
    backoff = Backoff(attempts=5, uniform=lambda low, high: low + share * (high - low))

    wait = backoff.wait_s(error(wait_s=hint), failures=1)

    assert wait is not None
    assert hint <= wait <= hint + 1


def test_backoff_doubles_with_full_jitter():
    backoff = Backoff(attempts=99, uniform=lambda low, high: high)

    assert [backoff.wait_s(error(), failures=n) for n in (1, 2, 3, 4, 20)] == [1, 2, 4, 8, 60]
