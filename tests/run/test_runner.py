"""How items flow, without a wire: order, ends, retries, lanes, money."""

from __future__ import annotations

import signal

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope
from playing import ListFeed, Play, ScriptedWire, items, throttle, trouble

from batchrunner.errors import (
    BudgetReached,
    Interrupted,
    JobError,
    ProviderRefused,
    ProviderUnavailable,
    RunError,
    StoreError,
)
from batchrunner.limits import Budget, Estimator
from batchrunner.records import Item

pytestmark = pytest.mark.anyio


async def test_every_item_is_settled_once():
    play = await Play(ScriptedWire()).run(items(1_000))

    assert sorted(play.statuses(), key=int) == [str(row) for row in range(1_000)]
    assert len(play.outcomes) == 1_000
    assert set(play.wire.sent.values()) == {1}


async def test_an_empty_input_ends_at_once():
    assert (await Play(ScriptedWire()).run([])).outcomes == []


async def test_workers_that_outrun_the_feed_go_on_when_it_does():
    """Seen on a busy machine: the queue ran dry, and nobody told the workers that it had filled again."""
    feed = ListFeed(items(600), chunk=20, pause_s=0.002)

    with anyio.fail_after(10):
        play = await Play(ScriptedWire(), concurrency=4).run(feed)

    assert len(play.outcomes) == 600


async def test_no_more_than_concurrency_are_in_flight():
    play = await Play(ScriptedWire(latency_s=0.001), concurrency=6).run(items(100))

    assert play.wire.most_out == 6


async def test_until_the_first_success_three_are_in_flight():
    wire = ScriptedWire(latency_s=0.02)
    play = Play(wire, concurrency=50)

    async with anyio.create_task_group() as group:
        group.start_soon(play.run, items(200))
        await anyio.sleep(0.01)
        first = wire.most_out

    assert first == 3
    assert wire.most_out == 50


async def test_trouble_is_tried_again():
    play = await Play(ScriptedWire([trouble(), None, trouble()])).run(items(3))

    assert set(play.statuses().values()) == {"succeeded"}
    assert sum(play.wire.sent.values()) == 5


async def test_attempts_are_bounded_and_the_item_is_exhausted():
    wire = ScriptedWire(by_item={"1": [trouble()] * 9})

    play = await Play(wire, attempts=3).run(items(4))

    assert play.statuses()["1"] == "exhausted"
    assert wire.sent["1"] == 3


async def test_rate_limits_do_not_use_up_attempts():
    wire = ScriptedWire(by_item={"1": [throttle(0.01)] * 9})

    play = await Play(wire, attempts=3).run(items(4))

    assert play.statuses()["1"] == "succeeded"
    assert wire.sent["1"] == 10


async def test_a_rate_limit_hint_pauses_the_whole_lane():
    wire = ScriptedWire([None, throttle(1.5)], latency_s=0.005)

    await Play(wire, concurrency=1).run(items(20))

    gaps = [after - before for before, after in zip(wire.times, wire.times[1:], strict=False)]
    assert max(gaps) >= 1.5
    assert sorted(gaps)[-2] < 1


async def test_a_rejected_item_does_not_stop_the_others():
    wire = ScriptedWire(by_item={"5": [trouble(verdict="reject", error_type="content_filter")]})

    play = await Play(wire).run(items(10))

    assert play.statuses()["5"] == "rejected"
    assert play.brakes.cause is None


async def test_an_abort_ends_the_run_and_leaves_items_unfinished():
    wire = ScriptedWire([trouble(verdict="abort", error_type="auth", scope="run")] * 500)

    play = await Play(wire, concurrency=50).run(items(500))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert sum(wire.sent.values()) <= 3


async def test_the_same_refusal_from_the_start_ends_the_run_and_blames_no_item():
    wire = ScriptedWire([trouble(verdict="reject", error_type="bad_request")] * 500)

    play = await Play(wire, concurrency=50).run(items(500))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert sum(wire.sent.values()) <= 23


async def test_refusals_that_ended_the_run_still_count_what_may_be_billed_for_their_items():
    refused = trouble(verdict="reject", error_type="bad_request")
    wire = ScriptedWire([trouble(went_out=True), *[refused] * 500])

    play = await Play(wire).run(items(50))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert play.tally.left_possibly_billed == 1


async def test_a_few_refusals_without_a_pattern_are_the_items_own():
    wire = ScriptedWire([trouble(verdict="reject", error_type="bad_request")] * 2)

    play = await Play(wire).run(items(2))

    assert play.statuses() == {"0": "rejected", "1": "rejected"}


async def test_a_dead_server_is_probed_and_then_given_up():
    wire = ScriptedWire([trouble(error_type="connection")] * 500)

    play = await Play(wire, concurrency=50, down_s=0.5).run(items(500))

    assert isinstance(play.brakes.cause, ProviderUnavailable)
    assert play.outcomes == []
    assert sum(wire.sent.values()) <= 8


async def test_a_server_that_comes_back_is_used_again():
    wire = ScriptedWire([trouble(error_type="connection")] * 4)

    play = await Play(wire, concurrency=50).run(items(100))

    assert set(play.statuses().values()) == {"succeeded"}
    assert len(play.outcomes) == 100


async def test_a_request_to_come_back_later_ends_the_lane():
    wire = ScriptedWire([None, trouble(verdict="defer", error_type="rate_limit", scope="lane", wait_s=86400)])

    play = await Play(wire, concurrency=1).run(items(10))

    assert isinstance(play.brakes.cause, ProviderUnavailable)
    assert len(play.outcomes) == 1


async def test_a_drain_finishes_what_is_in_flight():
    wire = ScriptedWire(latency_s=0.05)
    play = Play(wire, concurrency=3)

    async with anyio.create_task_group() as group:
        group.start_soon(play.run, items(100))
        await anyio.sleep(0.02)
        play.brakes.drain(Interrupted(signal.SIGTERM))

    assert len(play.outcomes) == 3
    assert sum(wire.sent.values()) == 3


async def test_a_drain_does_not_wait_for_a_slow_pace():
    play = Play(ScriptedWire(), limits={"rpm": 1})

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(play.run, items(10))
            await anyio.sleep(0.05)
            play.brakes.drain(Interrupted(signal.SIGTERM))

    assert len(play.outcomes) == 1


async def test_a_stop_gives_up_those_in_flight_and_says_which():
    play = Play(ScriptedWire(latency_s=30), concurrency=3)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(play.run, items(10))
            await anyio.sleep(0.02)
            play.brakes.stop(Interrupted(signal.SIGTERM))

    assert play.outcomes == []
    assert len(play.runner.in_flight) == 3


async def test_a_stop_while_answers_are_being_written_gives_none_of_them_up():
    play, written = Play(ScriptedWire(), concurrency=4), []

    async def slowly(outcome):
        with CancelScope(shield=True):
            await anyio.sleep(0.1)
            written.append(outcome.item_id)
        await anyio.lowlevel.checkpoint()

    play.runner.recorder.record = slowly
    async with anyio.create_task_group() as group:
        group.start_soon(play.run, items(50))
        while len(play.runner.in_flight) < 4:  # noqa: ASYNC110 (nothing tells of it)
            await anyio.sleep(0.005)
        play.brakes.stop()

    assert len(written) == play.tally.now.succeeded == sum(play.wire.sent.values())
    assert not play.runner.in_flight


async def test_an_item_deadline_shorter_than_the_hint_ends_the_item_at_once():
    wire = ScriptedWire([None, throttle(30)])

    with anyio.fail_after(5):
        play = await Play(wire, concurrency=1, item_s=10).run(items(2))

    assert sorted(play.statuses().values()) == ["exhausted", "succeeded"]


async def test_the_budget_stops_before_it_is_overshot():
    budget = Budget(max_cost_usd=0.5)
    estimator = Estimator({30: 100})

    play = await Play(ScriptedWire(latency_s=0.001), budget=budget, estimator=estimator).run(items(100))

    assert isinstance(play.brakes.cause, BudgetReached)
    assert 0.15 <= budget.spent_usd <= 0.5
    assert budget.spent_usd == pytest.approx(sum(outcome.cost_usd for outcome in play.outcomes))


async def test_a_budget_that_is_used_up_sends_nothing():
    play = await Play(ScriptedWire(), budget=Budget(max_tokens=1_000, spent_tokens=999)).run(items(10))

    assert isinstance(play.brakes.cause, BudgetReached)
    assert play.wire.sent == {}


async def test_a_bad_row_costs_nothing_and_stops_nothing():
    broken = Item(item_id="x", row=9, file="rows.jsonl", line=10, columns={}, fault="not JSON")

    play = await Play(ScriptedWire()).run([*items(5), broken])

    assert play.statuses()["x"] == "rejected"
    assert play.wire.sent["x"] == 0


async def test_bad_rows_are_written_beside_one_another():
    play, writing, most = Play(ScriptedWire(), concurrency=8), 0, 0

    async def slowly(outcome):
        nonlocal writing, most
        if outcome.status == "rejected":
            writing += 1
            most = max(most, writing)
            await anyio.sleep(0.005)
            writing -= 1

    play.runner.recorder.record = slowly
    bad = [Item(item_id=f"b{n}", row=20 + n, file="f", line=None, columns={}) for n in range(40)]
    await play.run([*items(20), *bad])

    assert play.tally.now.rejected == 40
    assert most >= 4


async def test_a_blocked_lane_does_not_hold_up_another():
    wire = ScriptedWire(by_item={str(row): [throttle(60)] for row in range(0, 2_000, 2)})
    play = Play(wire, concurrency=4, route=lambda item: "even" if int(item.item_id) % 2 == 0 else "odd")

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(play.run, items(2_000))
            while len(play.outcomes) < 1_000:  # noqa: ASYNC110 (the play has no event for a count)
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    assert {int(item_id) % 2 for item_id in play.statuses()} == {1}
    assert len(play.outcomes) == 1_000


async def test_many_lanes_all_go_on_after_the_canary():
    wire = ScriptedWire(latency_s=0.002)
    play = Play(wire, concurrency=2, route=lambda item: str(int(item.item_id) % 9))

    with anyio.fail_after(10):
        await play.run(items(300))

    assert len(play.outcomes) == 300


async def test_after_an_outage_the_waiting_items_use_all_slots():
    wire = ScriptedWire([None, *[trouble(error_type="connection")] * 12], latency_s=0.01)

    await Play(wire, concurrency=6, attempts=50).run(items(13))

    assert wire.most_out == 6
    assert wire.times[-1] - wire.times[-8] < 0.06


async def test_a_lane_that_is_to_come_back_tomorrow_leaves_its_items_to_the_other_key():
    tomorrow = trouble(verdict="defer", error_type="rate_limit", scope="lane", wait_s=86_400)
    wire = ScriptedWire([None, None, None, tomorrow], latency_s=0.002)
    play = Play(wire, concurrency=2, keys=2, limits={"rpm": 60_000})

    with anyio.fail_after(10):
        await play.run(items(60))

    assert len(play.outcomes) == 59
    assert isinstance(play.brakes.cause, ProviderUnavailable)


async def test_the_same_refusal_on_several_keys_is_recognised():
    wire = ScriptedWire([trouble(verdict="reject", error_type="bad_request")] * 500)

    play = await Play(wire, keys=2).run(items(500))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert sum(wire.sent.values()) <= 30


async def test_an_input_that_breaks_off_finishes_what_is_in_flight():
    class Broken(ListFeed):
        async def chunk(self):
            if self.given:
                await anyio.sleep(0.01)
                raise JobError("rows.jsonl: changed since it was checked")
            return await super().chunk()

    play = await Play(ScriptedWire(latency_s=0.02)).run(Broken(items(50), chunk=3))

    assert len(play.outcomes) >= 1
    assert isinstance(play.brakes.cause, RunError)
    assert play.runner.in_flight == {}


async def test_a_writer_that_fails_ends_the_run_with_its_error():
    play = Play(ScriptedWire())

    async def fail(outcome):
        raise StoreError("no space left on device")

    play.runner.recorder.record = fail
    await play.run(items(100))

    assert isinstance(play.brakes.cause, StoreError)
    assert sum(play.wire.sent.values()) <= 5
    assert play.tally.left_possibly_billed == sum(play.wire.sent.values())


async def test_trouble_of_this_machine_spends_no_attempt_and_is_no_trouble_of_the_servers():
    nothing_left = trouble(error_type="connection", scope="machine", wait_s=0.0)
    wire = ScriptedWire([None, *[nothing_left] * 2])
    play = Play(wire, concurrency=4, attempts=1)

    with anyio.fail_after(20):
        await play.run(items(10))

    assert {outcome.attempts for outcome in play.outcomes} == {1}
    assert set(play.statuses().values()) == {"succeeded"}
    assert play.tally.sent == 10
    assert {event for event, _ in play.told} == {"concurrency_cut", "lane_paused"}


async def test_trouble_of_this_machine_that_does_not_end_ends_the_run():
    nothing_left = trouble(error_type="connection", scope="machine", wait_s=0.0)
    wire = ScriptedWire([None, *[nothing_left] * 500])

    with anyio.fail_after(20):
        play = await Play(wire, concurrency=4, down_s=0.6).run(items(100))

    assert isinstance(play.brakes.cause, ProviderUnavailable)
    assert play.statuses() == {"0": "succeeded"}


async def test_due_retries_go_before_new_items():
    wire = ScriptedWire([None, trouble()])

    await Play(wire, concurrency=1).run(items(50))

    order = [item_id for item_id, count in wire.sent.items() if count == 2]
    assert order == ["1"]
