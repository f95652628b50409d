"""Retries within their budget: new items go on, nothing is lost, and an end does not wait for it."""

from __future__ import annotations

import signal
from collections import Counter

import anyio
import pytest
from playing import Play, ScriptedWire, items, throttle, trouble

from batchrunner.errors import Interrupted
from batchrunner.limits import RetryBudget
from batchrunner.runner.queues import WAITING_PER_SLOT

pytestmark = pytest.mark.anyio

WINDOW_S, FLOOR = 0.4, 5


def small_budget() -> RetryBudget:
    return RetryBudget(window_s=WINDOW_S, floor=FLOOR)


def empty_budget() -> RetryBudget:
    """Nothing left of it for as long as a test lasts."""
    budget = RetryBudget()
    for _ in range(5_000):
        budget.took(anyio.current_time(), retry=True)
    return budget


def failing(count: int, times: int) -> ScriptedWire:
    """The first `count` items fail so often; what comes behind them is answered."""
    wire = ScriptedWire(latency_s=0.001)
    wire.by_item = {str(row): [trouble(went_out=True) for _ in range(times)] for row in range(1, 2 * count, 2)}
    return wire


async def test_retries_keep_to_their_share_and_everything_ends():
    wire = failing(25, times=3)

    with anyio.fail_after(20):
        play = await Play(wire, concurrency=4, retries=small_budget).run(items(50))

    assert Counter(play.statuses().values()) == {"succeeded": 50}
    assert wire.sent.total() == 50 + 25 * 3
    seen, retried = set(), []
    for at, item_id in zip(wire.times, wire.order, strict=True):
        retried += [at] if item_id in seen else []
        seen.add(item_id)
        recent = sum(at - WINDOW_S < other <= at for other in wire.times)
        # A request is counted before it is sent, and for up to one part of the window longer.
        assert sum(other > at - WINDOW_S * 0.9 for other in retried) <= max(FLOOR, recent / 2) + 4
    assert [event for event, _ in play.told].count("retry_budget_emptied") == 1


async def test_new_items_do_not_wait_behind_retries_without_a_budget():
    wire = failing(2, times=1)
    play = Play(wire, concurrency=4, retries=empty_budget)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(play.run, items(40))
            while len(play.outcomes) < 38:  # noqa: ASYNC110 (the play has no event for a count)
                await anyio.sleep(0.005)
            play.brakes.drain(Interrupted(signal.SIGTERM))

    assert Counter(play.statuses().values()) == {"succeeded": 38}
    assert "retry_budget_emptied" in {event for event, _ in play.told}


async def test_the_bound_on_waiting_items_holds_new_ones_back():
    wire = ScriptedWire([None, *[step for _ in range(500) for step in (trouble(), None)]], latency_s=0.001)
    play = Play(wire, concurrency=2, retries=empty_budget)

    async with anyio.create_task_group() as group:
        group.start_soon(play.run, items(1_000))
        await anyio.sleep(0.3)
        play.brakes.drain(Interrupted(signal.SIGTERM))

    begun, settled = len(wire.sent), len(play.outcomes)
    assert begun - settled == WAITING_PER_SLOT * 2 + 1
    assert begun < 30


@pytest.mark.parametrize("how", ["drain", "stop"])
async def test_an_end_does_not_wait_for_the_budget(how):
    wire = failing(2, times=1)
    play = Play(wire, concurrency=4, retries=empty_budget)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(play.run, items(20))
            await anyio.sleep(0.2)
            getattr(play.brakes, how)(Interrupted(signal.SIGTERM))

    assert len(play.outcomes) == 18
    assert wire.sent.total() == 20
    assert play.tally.left_possibly_billed == 2
    assert sum(backlog.waits for backlog in play.runner.backlogs) == 0


async def test_waiting_for_the_budget_is_not_spinning():
    play = Play(failing(2, times=1), concurrency=4, retries=empty_budget)
    asked = Counter()

    async with anyio.create_task_group() as group:
        group.start_soon(play.run, items(20))
        await anyio.sleep(0.2)
        lane = play.runner.desks[0].channel.lane
        lane.may_retry = lambda: bool(asked.update(["asked"])) and False
        await anyio.sleep(0.2)
        play.brakes.drain(Interrupted(signal.SIGTERM))

    assert asked["asked"] <= 2


async def test_attempts_after_a_rate_limit_need_no_budget():
    wire = ScriptedWire(by_item={str(row): [throttle(0.001)] * 3 for row in range(1, 30)})

    with anyio.fail_after(10):
        play = await Play(wire, retries=lambda: RetryBudget(floor=1)).run(items(30))

    assert Counter(play.statuses().values()) == {"succeeded": 30}
    assert "retry_budget_emptied" not in {event for event, _ in play.told}


async def test_an_item_whose_clock_runs_out_while_it_waits_ends_with_its_own_error():
    """And without a request: it would only look like more trouble of the server's."""
    wire = failing(10, times=99)
    play = Play(wire, concurrency=4, attempts=200, item_s=0.3, retries=lambda: RetryBudget(window_s=1.5, floor=FLOOR))

    with anyio.fail_after(10):
        await play.run(items(20))

    assert Counter(play.statuses().values()) == {"succeeded": 10, "exhausted": 10}
    assert {outcome.error for outcome in play.outcomes if outcome.status == "exhausted"} == {"server answered 500"}
    sent = {
        item_id: [at for at, other in zip(wire.times, wire.order, strict=True) if other == item_id]
        for item_id in wire.sent
    }
    assert max(times[-1] - times[0] for times in sent.values()) < 0.9


async def test_a_lane_that_is_down_is_probed_without_a_budget():
    """What failed while the lane was down spends no attempt, so that trying it again is no retry."""
    wire = ScriptedWire([None, *[trouble(error_type="connection")] * 24], latency_s=0.002)

    with anyio.fail_after(10):
        play = await Play(wire, concurrency=4, probe_s=0.0005, retries=lambda: RetryBudget(floor=1)).run(items(30))

    assert Counter(play.statuses().values()) == {"succeeded": 30}


async def test_a_fifth_of_failures_never_meets_the_budget():
    wire = ScriptedWire([trouble(), None, None, None, None] * 200)

    play = await Play(wire, concurrency=8, attempts=50).run(items(800))

    assert Counter(play.statuses().values()) == {"succeeded": 800}
    assert wire.sent.total() == 1_000
    assert "retry_budget_emptied" not in {event for event, _ in play.told}
