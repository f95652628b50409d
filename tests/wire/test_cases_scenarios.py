"""The conformance cases that are whole plays: a runner, the real wire, a server that misbehaves on cue."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import polars as pl
import pytest
from driving import batchrunner, finish, prompts, start, write_rows
from faulty_server import FaultyServer, serve_in_thread
from wire_play import WirePlay, playing

from batchrunner.errors import ProviderRefused
from batchrunner.transport import Clocks, Wire

CASES = {
    case["id"]: case
    for line in Path(__file__).with_name("cases.jsonl").read_text().splitlines()
    if (case := json.loads(line))
}


def replies(case_id: str) -> list[dict[str, Any]]:
    """A case's replies, those of other cases looked up."""
    return [CASES[told["ref"]]["reply"] if "ref" in told else told for told in CASES[case_id]["replies"]]


async def played(server: FaultyServer, case_id: str, *, count: int = 1, **settings: Any) -> WirePlay:
    """The whole run against the case's replies; the last of them is given for ever."""
    *first, last = replies(case_id)
    server.replies.extend(first)
    server.default = last
    async with playing(server.url, **settings) as play:
        return await play.run(count, stream=CASES[case_id].get("stream", False))


def gaps(server: FaultyServer) -> list[float]:
    times = [seen.at for seen in server.seen]
    return [after - before for before, after in pairwise(times)]


@pytest.mark.anyio
async def test_a_throttled_item_succeeds_after_the_wait_it_was_told(server):
    play = await played(server, "M01")

    [outcome] = play.outcomes
    assert (outcome.status, outcome.text, outcome.attempts) == ("succeeded", "hi", 2)
    assert [outcome.prompt_tokens, outcome.completion_tokens, outcome.total_tokens] == [9, 3, 12]
    assert gaps(server)[0] >= 1.0


@pytest.mark.anyio
async def test_a_server_that_keeps_failing_exhausts_the_attempts(server):
    play = await played(server, "M02", attempts=3)

    [outcome] = play.outcomes
    assert (outcome.status, outcome.error_type, outcome.attempts) == ("exhausted", "server", 3)
    assert len(server.seen) == 3


@pytest.mark.anyio
async def test_the_text_of_a_cut_stream_is_not_glued_to_the_next(server):
    play = await played(server, "M03")

    [outcome] = play.outcomes
    assert (outcome.status, outcome.text, outcome.attempts) == ("succeeded", "Héllo", 2)
    assert outcome.possibly_billed == 1


@pytest.mark.anyio
async def test_one_throttled_request_holds_its_whole_lane(server):
    """The case asks for five seconds; one shows the same."""
    server.replies.extend([CASES["A01"]["reply"], {"status": 429, "headers": {"Retry-After": "1"}, "body": ""}])
    server.default = CASES["A01"]["reply"]
    async with playing(server.url, concurrency=8) as play:
        await play.run(40)

    throttled_at = server.seen[1].at
    # Those that were out already when the refusal came back.
    assert len([seen for seen in server.seen[2:] if seen.at < throttled_at + 1.0]) < 8
    assert {outcome.status for outcome in play.outcomes} == {"succeeded"}
    assert len(server.seen) == 41


@pytest.mark.anyio
async def test_an_empty_account_ends_the_run_and_no_item(server):
    play = await played(server, "M08", count=200, concurrency=8)

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert len(server.seen) <= 8


@pytest.mark.anyio
async def test_a_connection_closed_while_idle_costs_no_wait(server):
    play = await played(server, "M15", count=2, uniform=max)

    assert [outcome.status for outcome in play.outcomes] == ["succeeded", "succeeded"]
    assert [seen.connection for seen in server.seen] == [1, 1, 2]
    assert gaps(server)[1] < 0.5


@pytest.mark.anyio
async def test_a_redirect_ends_the_run_and_its_target_sees_nothing(server):
    async with FaultyServer() as other:
        server.default = {"status": 307, "headers": {"Location": f"{other.url}/v1"}, "body": ""}
        async with playing(server.url, concurrency=8) as play:
            await play.run(50)

        assert other.connections == 0
    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert len(server.seen) <= 8


async def throttled_gaps(lanes: int, *, times: int) -> list[list[float]]:
    """The waits of as many runs at once, each on a lane of its own whose server throttles without a hint."""
    async with AsyncExitStack() as stack, Wire(clocks=Clocks()) as wire:
        servers = [await stack.enter_async_context(FaultyServer()) for _ in range(lanes)]
        async with anyio.create_task_group() as all_of_them:
            for server in servers:
                server.replies.extend([CASES["F31"]["reply"]] * times)
                server.default = CASES["A01"]["reply"]
                all_of_them.start_soon(WirePlay(wire, server.url, uniform=random.uniform).run, 1)
        return [gaps(server) for server in servers]


@pytest.mark.anyio
@pytest.mark.slow
async def test_silent_throttling_is_met_with_growing_waits_that_no_two_lanes_share():
    """One run for both: its waits are real."""
    found = await throttled_gaps(6, times=4)

    for waits in found:
        assert len(waits) == 4
        assert waits[0] + waits[1] < waits[2] + waits[3]
        assert waits[1] < waits[3]
    last = [waits[-1] for waits in found]
    assert max(last) - min(last) > 0.02


def words(rows: Path, url: str, *more: object) -> list[object]:
    return ["run", rows, "--provider", "openai", "--model", "m", "--base-url", url, "--json", *more]


def test_a_stream_under_way_is_given_up_after_the_grace_and_not_recorded(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2, stream=True))
    dripped = 'data: {"choices":[{"index":0,"delta":{"content":"partial "},"finish_reason":null}]}\n\n'
    reply = {"headers": {"Content-Type": "text/event-stream"}, "body": dripped, **CASES["M16"]["replies"][0]}
    with serve_in_thread() as server:
        server.default = reply
        process = start(*words(rows, server.url, "--grace", "0.4s", "--out", tmp_path / "run"))
        while len(server.seen) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ended = finish(process)

    assert time.monotonic() - began < 5
    assert ended.code == 143
    assert ended.summary["items"]["unfinished"] == 2
    assert ended.summary["possibly_billed"] == 2
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file() and b"partial " in path.read_bytes()] == []


@pytest.mark.parametrize("late_s", [0.0, 0.05])
def test_a_success_before_a_crash_stands_in_the_table_once(tmp_path, late_s):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    good = CASES["A01"]["reply"]
    with serve_in_thread() as server:
        server.replies.extend([CASES["F37"]["reply"], good])
        server.default = good
        process = start(*words(rows, server.url, "--out", tmp_path / "run"))
        while len(server.seen) < 2:
            time.sleep(0.005)
        time.sleep(late_s)
        process.kill()
        finish(process)
        ended = batchrunner(*words(rows, server.url, "--out", tmp_path / "run"))

        assert len(server.seen) <= 3
    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table.select("item_id", "status", "text").rows() == [("p0", "succeeded", "hi")]
