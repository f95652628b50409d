"""What a lane keeps to: the user's limits, announced ones below them, and pauses; told as it decides."""

from __future__ import annotations

from typing import Any

import pytest

from batchrunner.errors import RequestError
from batchrunner.limits import Breaker, Concurrency, Lane


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Told(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(clock, told):
    def make(concurrency: int | str = 50, **limits: Any) -> Lane:
        breaker = Breaker(down_s=600)
        lane = Lane("k", concurrency=Concurrency(concurrency), breaker=breaker, tell=told, clock=clock, **limits)
        lane.canary = None
        return lane

    return make


def refused(wait_s: float | None = None, **changes: Any) -> RequestError:
    facts: dict[str, Any] = {"verdict": "retry", "error_type": "rate_limit", "scope": "lane", "wait_s": wait_s}
    return RequestError("busy", **(facts | changes))


def overloaded(wait_s: float | None = None) -> RequestError:
    return refused(wait_s, error_type="overloaded")


def test_an_announced_limit_fills_in_where_none_was_set(make, told):
    lane = make()

    lane.announced(requests=600, tokens=60_000)

    assert (lane.requests_per_minute, lane.counts_tokens, lane.throttle.source) == (600, True, "announced")
    assert told[0] == ("limit_announced", {"lane": "k", "requests_per_minute": 600, "tokens_per_minute": 60_000})


@pytest.mark.parametrize(("announced", "kept"), [(300, 300), (6_000, 600)])
def test_an_announced_limit_only_ever_lowers_what_was_set(make, announced, kept):
    lane = make(requests_per_minute=600)

    lane.announced(requests=announced)

    assert lane.requests_per_minute == kept


def test_a_process_takes_its_share_of_what_is_announced(make):
    lane = make(share=0.25)

    lane.announced(requests=600)

    assert lane.requests_per_minute == 150


def test_an_announcement_is_told_once_and_not_with_each_reply(make, told, clock):
    lane = make()

    for number in range(1_000):
        lane.announced(requests=600 + number % 2)
        clock.now += 0.01

    assert told.names() == ["limit_announced"]


def test_a_raised_limit_is_believed_after_a_while(make, clock):
    lane = make()
    lane.announced(requests=600)

    clock.now += 31
    lane.announced(requests=1_200)

    assert lane.requests_per_minute == 1_200


def test_nothing_left_holds_the_lane_until_the_reset(make, told, clock):
    lane = make()

    lane.announced(hold_s=2.0, sent_at=clock.now - 0.5)

    assert lane.paused_s() == pytest.approx(1.5)
    assert not lane.open_now()
    assert told.names() == ["lane_paused"]


def test_a_hold_that_has_passed_or_is_longer_than_any_pause_is_none(make, clock):
    lane = make(longest_pause_s=300.0)

    lane.announced(hold_s=2.0, sent_at=clock.now - 5.0)
    lane.announced(hold_s=25_000.0)

    assert lane.paused_s() == 0


def test_a_hold_of_hardly_more_than_the_pace_is_left_to_the_pace(make, clock):
    """A server that lets one request through at a time says after each that nothing is left."""
    lane = make(requests_per_minute=60)

    lane.announced(hold_s=2.0, sent_at=clock.now - 0.01)
    paced = lane.paused_s()
    lane.announced(hold_s=5.0, sent_at=clock.now)

    assert paced == 0
    assert lane.paused_s() == pytest.approx(5.0)


def test_a_lane_that_waits_for_nothing_admits_at_once(make, clock):
    lane = make(requests_per_minute=60, tokens_per_minute=60_000)

    assert lane.admit_now(2_000)
    assert not lane.admit_now(10)
    clock.now += 1.1
    assert not lane.admit_now(10)
    clock.now += 1.0
    assert lane.admit_now(10)


def test_slots_follow_the_canary_and_the_breaker(make):
    lane = make()
    lane.canary = 3
    assert lane.slots == 3

    for item in "abcdef" * 10:
        lane.failed(refused(error_type="server", scope="item"), item, started_at=0.0)
    assert lane.slots == 1
    lane.canary = None
    lane.succeeded(latency_s=0.1)

    assert lane.slots == 50


def mixed(lane: Lane, *, failing: float, attempts: int = 200) -> None:
    """Attempts of which every so many meets a 503."""
    due = 0.0
    for number in range(attempts):
        due += failing
        if due >= 1:
            due -= 1
            lane.failed(overloaded(), str(number), started_at=lane._clock())
        else:
            lane.succeeded(latency_s=0.1)


def test_a_503_here_and_there_neither_pauses_the_lane_nor_makes_its_item_wait_for_long(make):
    lane = make()

    mixed(lane, failing=0.2)

    assert lane.paused_s() == 0
    assert lane.healthy
    assert lane.patience(overloaded()) < 0.5


def test_a_wait_that_an_overloaded_server_names_is_the_lanes(make):
    lane = make()

    lane.failed(overloaded(3.0), "a", started_at=lane._clock())

    assert lane.paused_s() >= 3.0


def test_a_server_that_mostly_fails_is_given_time(make):
    lane = make()

    mixed(lane, failing=0.8)

    assert lane.paused_s() > 0
    assert not lane.healthy
    assert lane.patience(overloaded()) == 1.0


def test_a_rate_limit_never_shortens_a_wait(make):
    assert make().patience(refused()) == 1.0


def test_a_refusal_teaches_a_rate_and_says_so(make, told, clock):
    lane = make("auto")
    for _ in range(20):
        lane.took(retry=False)
        clock.now += 0.001
    lane.failed(refused(2.0), "a", started_at=clock.now - 0.001)

    clock.now += lane.paused_s()
    lane.took(retry=False)

    assert "rate_learned" in told.names()
    assert lane.throttle.source == "learned"
    assert 30 <= (lane.requests_per_minute or 0) / 60 <= 60
    assert lane.facts()["requests_by"] == "learned"


def test_a_number_of_requests_in_flight_learns_no_rate(make, told, clock):
    lane = make(4)
    lane.took(retry=False)
    lane.failed(refused(2.0), "a", started_at=clock.now)

    clock.now += lane.paused_s()
    lane.took(retry=False)

    assert lane.requests_per_minute is None
    assert "rate_learned" not in told.names()


def test_one_refusal_of_a_set_rate_costs_little_of_it(make, clock):
    lane = make("auto", requests_per_minute=12_000)
    for _ in range(5):
        lane.took(retry=False)
        clock.now += 0.005
    lane.failed(refused(2.0), "a", started_at=clock.now - 0.001)

    clock.now += lane.paused_s()
    lane.took(retry=False)

    assert lane.requests_per_minute == pytest.approx(0.97 * 12_000)


def test_a_reply_that_takes_ever_longer_is_told_when_it_cuts_the_slots(told, clock):
    lane = Lane("k", concurrency=Concurrency("auto"), breaker=Breaker(down_s=600), tell=told, clock=clock)

    for _ in range(5_000):
        lane.in_flight = lane.concurrency.limit
        lane.succeeded(latency_s=0.01 * max(1.0, lane.concurrency.limit / 20))

    assert "concurrency_eased" in told.names()
    assert lane.concurrency.limit < 100
