"""Whatever the wire does, every item ends exactly once."""

from __future__ import annotations

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import ListFeed, Play, ScriptedWire, items, throttle, trouble

STEPS = st.one_of(
    st.none(),
    st.just(trouble()),
    st.just(trouble(error_type="malformed")),
    st.just(throttle(0.001)),
    st.just(trouble(verdict="reject", error_type="content_filter")),
    st.just(trouble(verdict="reject", error_type="bad_request")),
)


@settings(max_examples=150, deadline=None)
@given(
    script=st.lists(STEPS, max_size=30),
    count=st.integers(0, 12),
    concurrency=st.one_of(st.integers(1, 6), st.just("auto")),
    attempts=st.integers(1, 4),
    feed=st.fixed_dictionaries({"chunk": st.integers(1, 9), "pause_s": st.sampled_from([0.0, 0.0005])}),
)
def test_every_item_ends_exactly_once(script, count, concurrency, attempts, feed):
    """One outcome each, and never more than its attempts and the rate limits that it met."""
    wire = ScriptedWire(list(script))

    async def play():
        # A breaker that opens waits for real: these scripts are too short for it to matter.
        with anyio.fail_after(30):
            return await Play(wire, concurrency=concurrency, attempts=attempts, down_s=1e9, probe_s=0.0005).run(
                ListFeed(items(count), **feed)
            )

    ended = anyio.run(play)

    assert sorted(outcome.item_id for outcome in ended.outcomes) == sorted(str(row) for row in range(count))
    assert ended.brakes.cause is None
    assert ended.runner.in_flight == {}
