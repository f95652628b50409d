"""Items of one session: in input order, one at a time, while others go on."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import ListFeed, Play, ScriptedWire, items, throttle, trouble

from batchrunner.errors import ProviderRefused
from batchrunner.records import Item
from batchrunner.runner import Sessions

pytestmark = pytest.mark.anyio


def sessions_of(count: int, *, of: int, failed: dict[str, int] | None = None, most_held: int = 10_000) -> Sessions:
    """`of` sessions whose items take turns in the input; the last item is on its own."""
    return Sessions(
        lambda item: f"s{item.row % of}" if item.row < count - 1 else None, failed or {}, most_held=most_held
    )


def in_order(wire: ScriptedWire, count: int, of: int) -> bool:
    first = list(dict.fromkeys(wire.order))
    return all(
        [item for item in first if int(item) % of == name and int(item) < count - 1]
        == [str(row) for row in range(name, count - 1, of)]
        for name in range(of)
    )


def apart(wire: ScriptedWire, count: int, of: int) -> bool:
    """No two items of a session were ever in flight together."""
    pairs = [sorted(map(int, pair)) for pair in wire.met if len(pair) == 2]
    return not any(a % of == b % of and b < count - 1 for a, b in pairs)


async def test_items_of_a_session_go_one_after_another_and_sessions_side_by_side():
    wire = ScriptedWire(latency_s=0.002)

    play = await Play(wire, concurrency=8, sessions=sessions_of(60, of=6)).run(items(60))

    assert set(play.statuses().values()) == {"succeeded"}
    assert in_order(wire, 60, 6)
    assert apart(wire, 60, 6)
    assert wire.most_out >= 6


async def test_a_retry_keeps_its_place():
    wire = ScriptedWire(by_item={"0": [trouble(wait_s=0.02), throttle(0.01)]})

    await Play(wire, concurrency=8, sessions=sessions_of(12, of=2)).run(items(12))

    assert wire.order.index("2") > max(at for at, item in enumerate(wire.order) if item == "0")


async def test_after_a_failed_item_the_later_ones_of_its_session_are_rejected():
    wire = ScriptedWire(by_item={"2": [trouble(verdict="reject", error_type="content_filter")]})

    play = await Play(wire, sessions=sessions_of(11, of=2)).run(items(11))

    found = {outcome.item_id: outcome.error_type for outcome in play.outcomes}
    assert [found[str(row)] for row in (0, 2, 4, 6, 8)] == [None, "content_filter", "session", "session", "session"]
    assert {found[str(row)] for row in (1, 3, 5, 7, 9, 10)} == {None}
    assert not {"4", "6", "8"} & set(wire.order)


async def test_when_every_request_is_refused_no_item_is_blamed_for_its_session():
    refused = trouble(verdict="reject", error_type="bad_request")
    play = Play(ScriptedWire([refused] * 900), sessions=sessions_of(300, of=60))

    await play.run(items(300))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []


async def test_an_exhausted_item_also_ends_its_session():
    wire = ScriptedWire(by_item={"0": [trouble()] * 3})

    play = await Play(wire, attempts=3, sessions=sessions_of(7, of=2)).run(items(7))

    assert [play.statuses()[str(row)] for row in (0, 2, 4)] == ["exhausted", "rejected", "rejected"]


async def test_a_session_that_failed_in_an_earlier_run_goes_on_only_before_that_row():
    wire = ScriptedWire()

    play = await Play(wire, sessions=sessions_of(9, of=2, failed={"s0": 4})).run(items(9))

    refused = {outcome.item_id for outcome in play.outcomes if outcome.error_type == "session"}
    assert refused == {"6"}


async def test_more_of_a_session_than_can_be_held_come_in_further_passes():
    wire = ScriptedWire(latency_s=0.0005)

    play = await Play(wire, sessions=sessions_of(200, of=2, most_held=10)).run(items(200))

    assert len(play.outcomes) == 200
    assert in_order(wire, 200, 2)
    assert apart(wire, 200, 2)


async def test_a_lane_that_ends_takes_only_its_own_sessions_with_it():
    """Sessions of another agent go on; those behind an unfinished item stay unfinished, and nothing hangs."""
    gone = trouble(verdict="defer", error_type="rate_limit", scope="lane")
    wire = ScriptedWire(latency_s=0.001, by_item={"4": [gone]})
    play = Play(wire, route=lambda item: f"agent {item.row % 2}", sessions=sessions_of(40, of=4))

    with anyio.fail_after(10):
        await play.run(items(40))

    done = {int(item) for item in play.statuses()}
    assert {row for row in range(40) if row % 2} <= done
    assert 4 not in done
    assert not set(range(8, 39, 4)) & done


async def test_a_drain_ends_while_items_wait_behind_others():
    wire = ScriptedWire([None] + [trouble(verdict="abort", error_type="auth", scope="run")] * 50, latency_s=0.001)
    play = Play(wire, sessions=sessions_of(500, of=2))

    with anyio.fail_after(10):
        await play.run(items(500))

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert len(wire.order) <= 6


STEPS = st.one_of(
    st.none(),
    st.just(trouble()),
    st.just(throttle(0.001)),
    st.just(trouble(verdict="reject", error_type="content_filter")),
)


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(STEPS, max_size=30),
    count=st.integers(0, 24),
    of=st.integers(1, 5),
    concurrency=st.integers(1, 6),
    keys=st.integers(1, 3),
    agents=st.integers(1, 3),
    most_held=st.integers(1, 8),
)
def test_whatever_the_wire_does_sessions_keep_their_order(script, count, of, concurrency, keys, agents, most_held):
    """Each item ends once, no two of a session are in flight together, and none goes behind a failed one."""
    wire = ScriptedWire(list(script))

    async def play():
        with anyio.fail_after(30):
            return await Play(
                wire,
                concurrency=concurrency,
                attempts=2,
                down_s=1e9,
                probe_s=0.0005,
                keys=keys,
                route=lambda item: f"agent {item.row % agents}",
                sessions=sessions_of(count, of=of, most_held=most_held),
            ).run(ListFeed(items(count), chunk=5))

    ended = anyio.run(play)

    assert sorted(map(int, ended.statuses())) == list(range(count))
    assert len(ended.outcomes) == count
    assert apart(wire, count, of)
    for name in range(of):
        ends = [ended.statuses()[str(row)] == "succeeded" for row in range(name, count - 1, of)]
        assert ends == sorted(ends, reverse=True)


class TestSessions:
    """The rules, one by one."""

    @staticmethod
    def item(row: int) -> Item:
        return Item(item_id=str(row), row=row, file="f", line=None, columns={})

    def test_items_on_their_own_always_go(self):
        alone = Sessions(lambda item: None, {})

        assert [alone.arrive(self.item(row)) for row in range(3)] == ["goes"] * 3
        assert alone.settled("0", 0, succeeded=False) is None

    def test_what_is_left_for_the_next_pass_takes_those_behind_it_along(self):
        sessions = Sessions(lambda item: "s", {})
        assert sessions.arrive(self.item(0)) == "goes"

        sessions.leave_out(self.item(0))

        assert sessions.arrive(self.item(1)) == "later"
        sessions.rewind()
        assert [sessions.arrive(self.item(row)) for row in (0, 1)] == ["goes", "waits"]

    def test_behind_a_lost_item_nothing_goes(self):
        sessions = Sessions(lambda item: "s", {})
        for row in range(3):
            sessions.arrive(self.item(row))

        sessions.lose("0")

        assert sessions.held == 0
        assert sessions.arrive(self.item(3)) == "never"
