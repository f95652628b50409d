"""Every request of the conformance list as it reaches a server; and that no line of the list is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest

from batchrunner import providers
from batchrunner.access import Access
from batchrunner.limits import Breaker, Concurrency, Lane
from batchrunner.records import Endpoint
from batchrunner.stack import Channel, build_stack
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from faulty_server import FaultyServer, Seen

    from batchrunner.records import Request

HERE = Path(__file__).parent
CASES = {case["id"]: case for case in map(json.loads, (HERE / "cases.jsonl").read_text().splitlines())}
PROVIDERS = {name: providers.load(name) for name in providers.available()}
SENT = [case for case in CASES.values() if "sent" in case]
NEEDED: dict[str, dict[str, Any]] = {"openai": {"model": "m"}, "opentools": {"model": "m"}, "tess": {"agent_id": 8794}}
SCENARIOS = {
    "M01": "wire/test_cases_scenarios.py::test_a_throttled_item_succeeds_after_the_wait_it_was_told",
    "M02": "wire/test_cases_scenarios.py::test_a_server_that_keeps_failing_exhausts_the_attempts",
    "M03": "wire/test_cases_scenarios.py::test_the_text_of_a_cut_stream_is_not_glued_to_the_next",
    "M06": "wire/test_cases_scenarios.py::test_one_throttled_request_holds_its_whole_lane",
    "M08": "wire/test_cases_scenarios.py::test_an_empty_account_ends_the_run_and_no_item",
    "M10": "cli/test_scenarios.py::test_a_rows_own_missing_agent_is_not_asked_for_ever",
    "M13": "cli/test_scenarios.py::test_a_refused_stream_option_is_left_out_from_then_on",
    "M14": "cli/test_scenarios.py::test_a_hint_longer_than_the_items_time_is_not_slept_out",
    "M15": "wire/test_cases_scenarios.py::test_a_connection_closed_while_idle_costs_no_wait",
    "M16": "wire/test_cases_scenarios.py::test_a_stream_under_way_is_given_up_after_the_grace_and_not_recorded",
    "M17": "cli/test_scenarios.py::test_trouble_that_hits_every_request_ends_the_run_and_blames_no_item",
    "M18": "cli/test_scenarios.py::test_trouble_that_hits_every_request_ends_the_run_and_blames_no_item",
    "M20": "wire/test_cases_scenarios.py::test_a_success_before_a_crash_stands_in_the_table_once",
    "M21": "wire/test_cases_scenarios.py::test_a_redirect_ends_the_run_and_its_target_sees_nothing",
    "M22": "wire/test_cases_scenarios.py::test_silent_throttling_is_met_with_growing_waits_that_no_two_lanes_share",
}
"""Whole runs, and the tests that play them."""


def each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def asks_of(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    row = case["row"]
    plain = {"messages": [{"role": "user", "content": "hi"}], **NEEDED.get(case.get("provider", "openai"), {})}
    plain |= {name: row[name] for name in ("messages", "agent_id", "session_id", "model") if name in row}
    return [plain | (variant or {}) for variant in each(row.get("params"))]


def requests_of(case: Mapping[str, Any]) -> Iterator[tuple[Endpoint, Request]]:
    """What the case sends, once for each form of its address and of its fields."""
    provider, row = PROVIDERS[case.get("provider", "openai")], case["row"]
    options = {name: row[name] for name in ("deployment", "api_version") if name in row}
    for base_url in each(row.get("base_url", provider.base_url)):
        endpoint = Endpoint(base_url=provider.normalise(base_url), options=options)
        for ask in asks_of(case):
            yield endpoint, provider.build(ask, endpoint)


async def send(server: FaultyServer, case: Mapping[str, Any], endpoint: Endpoint, request: Request) -> Seen:
    """Send it to the server in place of the host that it is for."""
    provider = PROVIDERS[case.get("provider", "openai")]
    here = server.url + urlsplit(endpoint.base_url).path
    lane = Lane("the key", concurrency=Concurrency(4), breaker=Breaker(down_s=600.0))
    async with Wire(clocks=Clocks()) as wire:
        line = wire.prepare(here, provider.headers(case["row"].get("api_key", "KEY"), endpoint))
        channel = Channel(lane=lane, access=Access(line), label="the key")
        call = build_stack(wire, provider, max_wait_s=300.0)
        await call(channel, request, item_id="1", deadline=anyio.current_time() + 30)
    return server.seen[-1]


@pytest.mark.anyio
@pytest.mark.parametrize("case", SENT, ids=[case["id"] for case in SENT])
async def test_a_request_reaches_the_server_as_it_was_meant(case, server):
    expect = case["sent"]
    has = each(expect.get("body_has", {}))

    for number, (endpoint, request) in enumerate(requests_of(case)):
        seen = await send(server, case, endpoint, request)

        url = urlsplit(endpoint.base_url)._replace(path="").geturl() + seen.path
        assert url == expect.get("url", url)
        assert seen.headers.items() >= expect.get("headers", {}).items()
        assert all(re.fullmatch(form, seen.headers[name]) for name, form in expect.get("headers_match", {}).items())
        assert not set(expect.get("headers_lack", [])) & set(seen.headers)
        assert seen.json().items() >= has[min(number, len(has) - 1)].items()
        assert not set(expect.get("body_lacks", [])) & set(seen.json())


def test_no_line_of_the_list_is_left_out():
    """Replies: test_cases_wire; requests: here; refused before sending: test_cases_parse; whole runs: by name."""
    replies = {name for name, case in CASES.items() if "reply" in case}
    preflight = {name for name, case in CASES.items() if case.get("preflight")}

    assert set(CASES) == replies | preflight | {case["id"] for case in SENT} | set(SCENARIOS)
    for where in SCENARIOS.values():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (HERE.parent / file).read_text(), where
