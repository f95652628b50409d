"""Lanes against servers that do not say their limit: what is used of it, and how often they have to refuse."""

from __future__ import annotations

import pytest
from virtual import Bucket, Fickle, Window, play

QUICK, USUAL, LONG = 0.001, 0.1, 2.0


@pytest.mark.parametrize("latency_s", [QUICK, USUAL])
def test_fifty_a_second_are_found_and_used(latency_s):
    """The server of the benchmark: 50 requests/s, 21 at once, Retry-After: 2, 1,500 rows."""
    played = play(Bucket(50, 0.42, 2.0), 1_500, latency_s=latency_s)

    assert played.used(50) >= 0.93
    assert played.refused_share < 0.01


@pytest.mark.parametrize("after_s", [2.0, None])
@pytest.mark.parametrize("burst_s", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("rate", [50, 200])
@pytest.mark.parametrize("latency_s", [QUICK, USUAL])
def test_a_bucket_is_learned_from_few_refusals(rate, burst_s, after_s, latency_s):
    played = play(Bucket(rate, burst_s, after_s), rate * 60, latency_s=latency_s)

    assert played.used(rate) >= 0.90
    assert played.refused_share < 0.025
    assert played.pauses() <= 12


@pytest.mark.parametrize("latency_s", [QUICK, USUAL, LONG])
@pytest.mark.parametrize("burst_s", [0.4, 2.0])
def test_a_few_a_second_are_learned_too(burst_s, latency_s):
    played = play(Bucket(5, burst_s, 2.0), 600, latency_s=latency_s)

    assert played.used(5) >= 0.88
    assert played.refused_share < 0.03


def test_one_a_second_without_a_burst_is_learned():
    played = play(Bucket(1, 0.4, 2.0), 300)

    assert played.used(1) >= 0.85
    assert played.refused_share < 0.06


def test_a_slow_server_gets_the_slots_that_its_rate_needs():
    played = play(Bucket(200, 0.4, 2.0), 200 * 60, latency_s=LONG)

    assert max(played.by_second()[second] for second in range(30, 50)) >= 180


@pytest.mark.parametrize("after_s", [None, 2.0])
@pytest.mark.parametrize(("limit", "latency_s"), [(60, QUICK), (60, USUAL), (600, USUAL)])
def test_a_minutes_window_does_not_make_the_rate_swing(limit, latency_s, after_s):
    """60 at once and then 429s for a minute: after that the rate is the window's, evenly."""
    played = play(Window(limit, 60, after_s), limit * 10, latency_s=latency_s)

    assert played.used(limit / 60) >= 0.95
    minutes = [sum(60 * m <= at < 60 * m + 60 for at in played.accepted) for m in range(2, 9)]
    assert all(0.88 * limit <= came <= limit for came in minutes)


def test_the_rate_that_was_refused_is_left_alone_for_a_minute():
    played = play(Bucket(50, 1.0, 2.0), 50 * 120)

    measured_at = [at for at, event, facts in played.told if event == "rate_learned" and facts["by"] == "measured"]
    raised = [at for at, event, _ in played.told if event == "rate_raised" and at > measured_at[-1]]
    assert all(at - measured_at[-1] > 20 for at in raised)
    assert not [at for at in played.refused if measured_at[-1] < at < measured_at[-1] + 30]


def test_a_pause_is_kept_whole_and_nothing_bursts_out_of_it():
    played = play(Bucket(50, 0.42, 2.0), 300)

    told_at = next(at for at, event, _ in played.told if event == "lane_paused")
    after = [at for at in played.accepted if at > told_at]
    assert after[0] >= told_at + 2.0
    assert sum(at < after[0] + 0.1 for at in after) <= 7


def test_refusals_of_one_burst_are_one_signal():
    played = play(Bucket(50, 0.42, 2.0), 300, latency_s=0.02)

    assert len(played.refused) > 5
    assert [event for _, event, _ in played.told].count("rate_learned") == 1


def test_refusals_by_chance_cost_their_pauses_and_no_more():
    """30 % refused at random, Retry-After: 1: whoever slows down for it slows down for ever."""
    played = play(Fickle(0.3, 1.0), 400, latency_s=USUAL)

    late = [at for at in played.accepted if at > 60]
    assert len(late) / (played.seconds - 60) > 1.5


def test_a_few_refusals_by_chance_teach_no_rate():
    """One in twenty is refused, for a moment only, while the others come through: that is no limit."""
    played = play(Fickle(0.05, 0.02), 6_000, latency_s=USUAL, concurrency=50)

    assert played.used(50 / USUAL) >= 0.6
    assert not [event for _, event, _ in played.told if event == "rate_learned"]


def test_a_set_rate_that_is_refused_once_is_nearly_kept():
    """One stall on the way packs a few requests together: no reason to believe in another limit."""
    server = Bucket(200, 0.1, 2.0)
    played = play(server, 8_000, requests_per_minute=12_000, stalls={10.0: 0.3})

    assert played.refused
    assert played.used(200) >= 0.90


def test_a_set_rate_is_never_exceeded_by_what_is_learned():
    played = play(Bucket(500, 1.0, 2.0), 1_000, requests_per_minute=3_000)

    assert max(played.by_second()[second] for second in range(1, 19)) <= 51
    assert not played.refused
