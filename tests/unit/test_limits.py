"""Pace, concurrency, estimates, budget, breaker: pure parts with a clock of their own."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import RequestError
from batchrunner.limits import Breaker, Budget, Concurrency, Connections, Estimator, RetryBudget
from batchrunner.limits.budget import Reservation
from batchrunner.limits.pace import RequestPace, TokenPace
from batchrunner.records import Request, Usage


def server_error() -> RequestError:
    return RequestError("server answered 500", verdict="retry", error_type="server")


def request(chars: int = 400, max_tokens: int | None = None, agent_id: str | None = None) -> Request:
    facts = {"prompt_chars": chars, "max_tokens": max_tokens, "agent_id": agent_id}
    return Request(path="/", body=b"", stream=False, key="k", **facts)


@pytest.mark.parametrize("per_minute", [600, 6_000, 30_000])
def test_the_pace_is_kept_and_used_up(per_minute):
    pace, now, sent = RequestPace(per_minute), 100.0, Counter()

    while now < 111.0:
        now += pace.wait_s(now)
        pace.take(now)
        sent[int(now)] += 1
        now += 0.0002

    assert all(abs(sent[second] - per_minute / 60) <= 1 + 0.005 * per_minute / 60 for second in range(101, 110))


@pytest.mark.parametrize("per_minute", [60, 299, 300, 1_000, 12_000, 100_000])
def test_no_minute_holds_more_than_its_allowance(per_minute):
    """The most that can go out in any 60 s: what may go at once, and what drips in."""
    pace, sent = RequestPace(per_minute), deque()
    now, most, together = 100.0, 0, 0

    for _ in range(int(per_minute * 1.1)):
        wait_s = pace.wait_s(now)
        together = max(together, sum(at == now for at in islice(reversed(sent), 60))) if wait_s else together
        now += wait_s
        pace.take(now)
        sent.append(now)
        while sent[0] <= now - 60.0:
            sent.popleft()
        most = max(most, len(sent))

    assert most <= per_minute
    assert together <= 1 + max(1, per_minute / 60 * 0.025)


def test_a_token_debt_is_paid_off_by_time():
    pace = TokenPace(60_000, now=0.0)

    pace.take(5_000, now=0.0)

    assert pace.wait_s(0.0) == pytest.approx(5.0, rel=0.01)
    assert pace.wait_s(5.1) == 0


def test_unused_tokens_are_given_back():
    pace = TokenPace(60_000, now=0.0)

    pace.take(5_000, now=0.0)
    pace.settle(5_000, 1_000)

    assert pace.wait_s(0.0) == pytest.approx(1.0, rel=0.01)


def test_a_fixed_concurrency_stays():
    concurrency = Concurrency(5)

    concurrency.throttled(started_at=1.0, now=2.0)

    assert concurrency.limit == 5


def test_auto_grows_only_while_it_is_what_binds():
    idle, busy = Concurrency("auto"), Concurrency("auto")

    for _ in range(100):
        idle.succeeded(in_flight=2, latency_s=1.0)
        busy.succeeded(in_flight=busy.limit, latency_s=1.0)

    assert idle.limit == 8
    assert busy.limit > 50


def test_a_burst_of_rate_limit_signals_is_one_signal():
    concurrency = Concurrency("auto")
    for _ in range(92):
        concurrency.succeeded(in_flight=concurrency.limit, latency_s=1.0)

    cuts = [concurrency.throttled(started_at=10.0, now=11.0) for _ in range(50)]

    assert cuts.count(True) == 1
    assert concurrency.limit == 70


def test_a_lack_of_files_cuts_a_fixed_concurrency_which_grows_back():
    concurrency = Concurrency(50)

    cuts = [concurrency.crowded(started_at=10.0, now=11.0) for _ in range(20)]
    assert cuts.count(True) == 1
    assert concurrency.limit == 35
    for _ in range(2_000):
        concurrency.succeeded(in_flight=concurrency.limit, latency_s=1.0)

    assert concurrency.limit == 50


def test_lanes_share_the_connections_there_are():
    lanes, connections = [Concurrency(40), Concurrency("auto"), Concurrency(40)], Connections(60)

    caps = [connections.share([lane]) for lane in lanes]

    assert caps == [None, 30, None]
    assert [lane.limit for lane in lanes] == [20, 8, 20]
    for _ in range(500):
        lanes[1].succeeded(in_flight=lanes[1].limit, latency_s=1.0)
    assert lanes[1].limit == 20


def test_lanes_that_ask_for_less_are_left_alone():
    lanes, connections = [Concurrency(20), Concurrency(20)], Connections(40)

    assert connections.share(lanes) is None
    assert [lane.limit for lane in lanes] == [20, 20]


def test_auto_does_not_grow_into_a_queue():
    """Replies that take ever longer as more are out mean that more does not help."""
    concurrency = Concurrency("auto")

    for _ in range(20_000):
        concurrency.succeeded(in_flight=concurrency.limit, latency_s=0.01 * max(1.0, concurrency.limit / 20))

    assert concurrency.limit < 100


def test_estimates_learn_what_requests_really_use():
    estimator = Estimator()
    before = estimator.estimate(request(4_000)).tokens

    for _ in range(50):
        estimator.learn(request(4_000), Usage(prompt_tokens=2_000, completion_tokens=40))
    after = estimator.estimate(request(4_000))

    assert before == pytest.approx(2_008, abs=10)
    assert after.prompt_tokens == pytest.approx(2_000, rel=0.02)
    assert 40 <= after.completion_tokens <= 48


def test_agents_are_estimated_each_by_its_own_replies():
    estimator, brief, wordy = Estimator(), request(400, agent_id="brief"), request(400, agent_id="wordy")

    for _ in range(50):
        estimator.learn(brief, Usage(prompt_tokens=100, completion_tokens=10))
        estimator.learn(wordy, Usage(prompt_tokens=100, completion_tokens=900))

    assert estimator.estimate(brief).completion_tokens <= 12
    assert estimator.estimate(wordy).completion_tokens >= 900
    assert estimator.estimate(request(400, agent_id="new")).completion_tokens >= 900


def test_a_maximum_bounds_the_estimate():
    assert Estimator().estimate(request(0, max_tokens=50)).completion_tokens == 50


@given(spent=st.lists(st.floats(0, 2), max_size=40), cap=st.floats(0.1, 10))
def test_a_budget_is_never_overshot_by_more_than_the_estimates_were_wrong(spent, cap):
    budget, overshoot = Budget(max_cost_usd=cap), 0.0

    for real in spent:
        wanted = Reservation(cost_usd=1.0)
        if budget.fits(wanted):
            budget.reserve(wanted)
            budget.settle(wanted, cost_usd=real, tokens=0)
            overshoot += max(0.0, real - 1.0)

    assert budget.spent_usd <= cap + overshoot + 1e-9


def test_trouble_of_two_items_never_opens_the_breaker():
    breaker = Breaker(down_s=600)

    for attempt in range(20):
        breaker.failed(server_error(), str(attempt % 2), window=3, now=float(attempt))

    assert not breaker.open


def test_one_answer_closes_the_breaker():
    breaker = Breaker(down_s=600)
    for item in "abc":
        breaker.failed(server_error(), item, window=3, now=0.0)
    assert breaker.open

    breaker.succeeded()

    assert not breaker.open


def test_probes_come_after_1_2_4_seconds_and_end_with_the_clock():
    breaker = Breaker(down_s=10)
    now, ended, waits = 0.0, None, []
    for item in "abc":
        ended = breaker.failed(server_error(), item, window=3, now=now)

    while ended is None:
        waits.append(breaker.probed())
        now += waits[-1]
        ended = breaker.failed(server_error(), "d", window=1, now=now)

    assert waits == [1.0, 2.0, 4.0]
    assert now <= 10


def test_nothing_but_rate_limits_ends_by_the_same_clock():
    breaker = Breaker(down_s=10)
    throttled = RequestError("busy", verdict="retry", error_type="rate_limit")

    ended = [breaker.failed(throttled, "a", window=3, now=float(now)) for now in range(12)]

    assert ended[10] is None
    assert ended[11] is not None


def test_the_breaker_opens_however_many_slots_there_are():
    breaker = Breaker(down_s=600)

    for number in range(1_500):
        breaker.failed(server_error(), str(number), window=1_500, now=0.0)

    assert breaker.open


def spend(budget: RetryBudget, now: float, *, requests: int = 0, retries: int = 0) -> None:
    for number in range(requests + retries):
        budget.took(now, retry=number >= requests)


def test_fifty_retries_are_always_allowed():
    budget = RetryBudget()

    spend(budget, 7.0, retries=49)
    assert budget.spare(7.0)
    spend(budget, 7.0, retries=1)

    assert not budget.spare(7.0)


def test_half_of_all_requests_may_be_retries():
    budget = RetryBudget()
    spend(budget, 0.0, requests=100)

    spend(budget, 1.0, retries=99)
    assert budget.spare(1.0)
    spend(budget, 1.0, retries=1)

    assert not budget.spare(1.0)


def test_a_new_request_makes_room_for_a_retry():
    budget = RetryBudget()
    spend(budget, 0.0, requests=60, retries=60)
    assert not budget.spare(0.0)

    spend(budget, 0.0, requests=1)

    assert budget.spare(0.0)


def test_the_budget_comes_back_as_time_passes():
    budget = RetryBudget()
    spend(budget, 10.0, retries=50)

    assert not budget.spare(129.9)
    assert budget.wait_s(130.0) <= 1.0
    assert budget.spare(131.0)


ACTS = st.lists(st.tuples(st.sampled_from(["request", "retry", "wait"]), st.floats(0, 40)), max_size=300)


@given(acts=ACTS, window_s=st.sampled_from([120.0, 0.3]), floor=st.integers(1, 5))
def test_no_window_holds_more_retries_than_its_share(acts, window_s, floor):
    """Against every request's own time: never too many, and whoever waits as told may go."""
    budget, now, sent = RetryBudget(window_s=window_s, floor=floor), 1_000.0, []

    for act, length in acts:
        if act == "wait":
            now += length * window_s / 120
            continue
        if act == "retry":
            now += budget.wait_s(now)
            assert budget.spare(now + window_s / 1e6)
            recent = [retry for at, retry in sent if now - at < window_s]
            # By whole steps: a request may count for one step longer.
            counted = sum(now - at <= window_s * 122 / 120 for at, _ in sent)
            assert sum(recent) < max(floor, counted / 2)
        budget.took(now, retry=act == "retry")
        sent.append((now, act == "retry"))

    assert budget.requests <= len(sent)
