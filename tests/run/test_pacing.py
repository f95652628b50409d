"""Pacing and stragglers in whole runs: lanes that do not starve each other, ends that nothing idle holds up."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from playing import ListFeed, Play, ScriptedWire, items, throttle, trouble

pytestmark = pytest.mark.anyio


async def test_a_blocked_lane_starves_no_other():
    """One agent is told to come back later; items of the other go on meanwhile, to their end."""
    rows = items(600)
    wire = ScriptedWire(by_item={"0": [throttle(0.6)]}, latency_s=0.001)
    play = Play(wire, route=lambda item: "slow" if item.row % 20 == 0 else "quick", concurrency=4)

    with anyio.fail_after(10):
        await play.run(ListFeed(rows))

    assert Counter(play.statuses().values()) == {"succeeded": 600}
    ended = {outcome.item_id: place for place, outcome in enumerate(play.outcomes)}
    quick = [ended[item.item_id] for item in rows if item.row % 20]
    slow = [ended[item.item_id] for item in rows if item.row % 20 == 0]
    assert max(quick) < sorted(slow)[len(slow) // 2]


async def test_the_end_does_not_wait_for_a_backoff_that_nobody_asked_for():
    """The last items have failed; while most come through they are tried again soon, not a second later."""
    wire = ScriptedWire(by_item={str(row): [trouble()] * 3 for row in (90, 99)}, latency_s=0.001)
    play = Play(wire, concurrency=4, no_wait=False)

    began = anyio.current_time()
    await play.run(items(100))

    assert Counter(play.statuses().values()) == {"succeeded": 100}
    assert anyio.current_time() - began < 1.0


async def test_the_end_waits_for_what_the_server_asked():
    wire = ScriptedWire(by_item={"99": [trouble(wait_s=0.3)]}, latency_s=0.001)
    play = Play(wire, concurrency=4)

    began = anyio.current_time()
    await play.run(items(100))

    assert wire.sent["99"] == 2
    assert anyio.current_time() - began >= 0.3


async def test_the_slowest_items_are_named():
    wire = ScriptedWire(by_item={"7": [trouble(wait_s=0.2)], "12": [trouble(wait_s=0.1)]}, latency_s=0.001)

    play = await Play(wire, concurrency=4).run(items(50))

    slowest = play.tally.slowest.facts()
    assert [found["item_id"] for found in slowest[:2]] == ["7", "12"]
    assert (slowest[0]["attempts"], len(slowest)) == (2, 3)


async def test_a_paced_lane_keeps_its_pace_though_workers_take_trips_themselves():
    wire = ScriptedWire(latency_s=0.002)
    play = Play(wire, concurrency=20, limits={"rpm": 6_000})

    await play.run(items(60))

    sent = sorted(wire.times)
    assert sent[-1] - sent[0] >= 0.9 * (60 - 4) / 100


@pytest.mark.slow
async def test_a_fifth_of_503s_costs_hardly_more_than_a_fifth():
    wire = ScriptedWire([None, *[trouble(error_type="overloaded", scope="lane"), None, None, None, None] * 700])
    wire.latency_s = 0.1
    rough = Play(wire, concurrency=50, no_wait=False, attempts=20)
    calm = Play(ScriptedWire(latency_s=0.1), concurrency=50, no_wait=False)

    rough_s = await seconds(rough, 2_000)
    calm_s = await seconds(calm, 2_500)

    assert Counter(rough.statuses().values()) == {"succeeded": 2_000}
    assert calm_s / rough_s >= 0.85


async def seconds(play: Play, count: int) -> float:
    began = anyio.current_time()
    await play.run(items(count))
    return anyio.current_time() - began
