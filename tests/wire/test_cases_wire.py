"""Every conformance case over a real socket: the provider's own request, one attempt through the real stack."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from faulty_server import FaultyServer

from batchrunner import providers
from batchrunner.access import Access
from batchrunner.errors import RequestError
from batchrunner.limits import Breaker, Concurrency, Lane
from batchrunner.records import Endpoint
from batchrunner.stack import Channel, build_stack
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.records import Completion

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
NOON = "Fri, 20 Nov 2026 18:00:00 GMT"
PROVIDERS = {name: providers.load(name) for name in providers.available()}
OPTIONS = {"deployment": "d", "api_version": "2024-10-21"}
NEEDED: dict[str, dict[str, Any]] = {"openai": {"model": "m"}, "opentools": {"model": "m"}, "tess": {"agent_id": 8794}}
VERDICTS = {"no": "reject", "yes": "retry", "defer": "defer", "abort": "abort"}
EQUALLY_RIGHT = {"C14": {"truncated", "malformed"}}
STALLS = frozenset({"hang", "drip_forever"})
LONG, SHORT = Clocks(), Clocks(first_byte_s=0.15, idle_s=0.15)


def cases_of(name: str) -> Iterator[dict[str, Any]]:
    for line in (HERE / name).read_text().splitlines():
        case = json.loads(line)
        if "reply" in case:
            yield case


CASES = [*cases_of("cases.jsonl"), *cases_of("own_cases.jsonl")]


def by_result(result: str) -> pytest.MarkDecorator:
    found = [case for case in CASES if case["expect"]["status"] == result]
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


def reply_of(case: Mapping[str, Any], *, elsewhere: str | None = None) -> dict[str, Any]:
    """The case's reply, dated, and a tenth as slow where it is slow. A redirect leads to `elsewhere`."""
    told = dict(case["reply"])
    told["headers"] = {"Date": NOON} | told["headers"]
    if elsewhere is not None:
        told["headers"]["Location"] = told["headers"]["Location"].replace("https://evil.example.test", elsewhere)
    if "pause_ms" in told:
        told["pause_ms"] /= 10
    if case["id"] == "H23":
        told["body"] = bomb()
    return told


def bomb() -> bytes:
    """200 MB of blanks as gzip."""
    engine, blanks = zlib.compressobj(wbits=16 + zlib.MAX_WBITS), b" " * 2**20
    return b"".join(engine.compress(blanks) for _ in range(200)) + engine.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """How one attempt ended, and the lane it was made on."""

    lane: Lane
    completion: Completion | None = None
    error: RequestError | None = None


async def met(server: FaultyServer, case: Mapping[str, Any], *, elsewhere: str | None = None) -> Met:
    """Ask as the case's provider asks, get the case's reply, read it: once."""
    kind = case.get("provider", "openai")
    provider, told = PROVIDERS[kind], reply_of(case, elsewhere=elsewhere)
    endpoint = Endpoint(base_url=provider.normalise(server.url), options=OPTIONS)
    prompt = "x" * (4_000_000 if told.get("end") == "early" else 2)
    asked = {"messages": [{"role": "user", "content": prompt}], "stream": case.get("stream", False)}
    request = provider.build(asked | NEEDED.get(kind, {}), endpoint)
    lane = Lane("the key", concurrency=Concurrency(4), breaker=Breaker(down_s=600.0))
    server.replies.append(told)
    async with Wire(clocks=SHORT if told.get("end") in STALLS else LONG) as wire:
        line = wire.prepare(endpoint.base_url, provider.headers("sk-canary-0123456789", endpoint))
        call = build_stack(wire, provider, max_wait_s=300.0)
        channel = Channel(lane=lane, access=Access(line), label="the key")
        try:
            answer = await call(channel, request, item_id="1", deadline=anyio.current_time() + 30)
        except RequestError as error:
            return Met(lane=lane, error=error)
    return Met(lane=lane, completion=answer.completion)


def went_out_once(server: FaultyServer, case: Mapping[str, Any]) -> bool:
    """One request, with an Accept header that agrees with its body."""
    [seen] = server.seen
    accept = "text/event-stream" if case.get("stream") else "application/json"
    azure = case.get("provider") == "azure"
    key = seen.headers.get("api-key") if azure else seen.headers["authorization"].removeprefix("Bearer ")
    return (seen.headers["accept"], key) == (accept, "sk-canary-0123456789")


@by_result("ok")
async def test_an_answer_over_the_wire_is_read_as_it_was_meant(case, server):
    expect = case["expect"]

    ended = await met(server, case)

    assert ended.error is None
    found, text = ended.completion, expect["text"]
    usage = [found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens]
    assert found.text == (text["unit"] * text["count"] if isinstance(text, dict) else text)
    assert found.finish_reason == expect["finish_reason"]
    assert usage == (expect["usage"] or [None, None, None])
    assert json.loads(found.tool_calls or "null") == expect.get("tool_calls")
    assert (found.reasoning, found.refusal) == (expect.get("reasoning"), expect.get("refusal"))
    if "n_texts" in expect:
        assert [message["content"] for message in json.loads(found.choices)] == expect["n_texts"]
    assert (found.text or "").encode() is not None
    assert went_out_once(server, case)
    assert ended.lane.in_flight == 0
    # G26: nothing is left for 2 s, which is the lane's business and not the row's.
    assert ended.lane.paused_s() == pytest.approx(2.0 if case["id"] == "G26" else 0.0, abs=0.2)


@by_result("error")
async def test_a_failure_over_the_wire_is_read_as_it_was_meant(case, server):
    expect = case["expect"]

    ended = await met(server, case)

    error = ended.error
    assert error is not None
    assert error.error_type in EQUALLY_RIGHT.get(case["id"], {expect["error_type"]}), str(error)
    assert error.verdict == VERDICTS[expect["retry"]], str(error)
    if expect["retry"] == "yes":
        hint = None if expect["wait"] == "backoff" else pytest.approx(expect["wait"], abs=0.01)
        assert error.wait_s == hint, str(error)
    assert 0 < len(str(error)) <= 2_000
    assert "sk-" not in str(error)
    assert case["reply"].get("end") in {"early", "refused"} or went_out_once(server, case)
    assert ended.lane.in_flight == 0


LANE_WIDE = [
    case
    for case in CASES
    if case["expect"].get("error_type") in {"rate_limit", "overloaded"} and case["expect"]["retry"] in {"yes", "defer"}
]


@pytest.mark.parametrize("case", LANE_WIDE[::4], ids=[case["id"] for case in LANE_WIDE[::4]])
async def test_a_wait_that_a_server_asks_for_is_the_whole_lanes(case, server):
    asked = case["expect"].get("wait")

    ended = await met(server, case)

    assert ended.lane.paused_s() > (asked - 1 if isinstance(asked, float) else 0)


@pytest.mark.parametrize("case_id", ["H31", "H32", "H33", "H34", "H35"])
async def test_a_redirects_target_sees_no_connection(case_id, server):
    case = next(case for case in CASES if case["id"] == case_id)

    async with FaultyServer() as other:
        ended = await met(server, case, elsewhere=other.url)

        assert other.connections == 0
    assert (ended.error.error_type, ended.error.verdict) == ("redirect", "abort")
    assert f"127.0.0.1:{other.port}" in str(ended.error)


def test_every_case_with_a_reply_is_run_once():
    ids = [case["id"] for case in CASES]

    assert len(ids) == len(set(ids))
    assert {case["expect"]["status"] for case in CASES} == {"ok", "error"}
    assert len(list(cases_of("own_cases.jsonl"))) >= 80
