"""One conversation that ends in a tool call, in every dialect: the same JSON comes of it."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from batchrunner import providers, simulator
from batchrunner.access import Access
from batchrunner.limits import Breaker, Concurrency, Lane
from batchrunner.records import Endpoint
from batchrunner.stack import Answer, Channel, build_stack
from batchrunner.transport import Clocks, Wire

pytestmark = pytest.mark.anyio

PROVIDERS = {kind: providers.load(kind) for kind in providers.available()}
FUNCTION = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["celsius", "kelvin"]},
            "days": {"type": "integer"},
        },
    },
}
TALK = [
    {"role": "system", "content": "You know the weather."},
    {"role": "user", "content": "Olá!"},
    {"role": "assistant", "content": "Hi! Which city?"},
    {"role": "user", "content": "Évora, for the week: rain?"},
]
ARRAY: dict[str, Any] = {"tools": [{"type": "function", "function": FUNCTION}]}
ASKED: dict[str, dict[str, Any]] = {
    "azure": ARRAY,
    "gateway": ARRAY,
    "openai": {"model": "m", **ARRAY},
    "opentools": {"model": "m", **ARRAY},
    "tess": {"agent_id": 8794, "tools": "agent", "functions": [FUNCTION]},
}
"""How each dialect is told of the tool: Tess knows the word only, its agent has the function."""


async def ask(kind: str, url: str, messages: list[dict[str, Any]], **more: Any) -> Answer:
    provider = PROVIDERS[kind]
    base_url = provider.normalise(f"{url}/v1" if kind == "openai" else url)
    endpoint = Endpoint(base_url=base_url, options={"deployment": "d", "api_version": "2024-10-21"})
    request = provider.build({"messages": messages, **ASKED[kind], **more}, endpoint)
    lane = Lane("the key", concurrency=Concurrency(1), breaker=Breaker(down_s=600.0))
    async with Wire(clocks=Clocks()) as wire:
        line = wire.prepare(base_url, provider.headers("sk-0123456789", endpoint))
        channel = Channel(lane=lane, access=Access(line), label="the key")
        call = build_stack(wire, provider, max_wait_s=300.0)
        return await call(channel, request, item_id="1", deadline=anyio.current_time() + 30)


async def test_the_same_call_comes_of_the_same_conversation_in_every_dialect_plain_and_streamed():
    async with simulator.serving(simulator.Settings()) as server:
        answers = {
            (kind, stream): await ask(kind, server.url, TALK, stream=stream)
            for kind in PROVIDERS
            for stream in (False, True)
        }

    assert set(ASKED) == set(PROVIDERS)
    (calls,) = {answer.completion.tool_calls for answer in answers.values()}
    (call,) = json.loads(calls)
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city", "unit", "days"}
    # The gateway streams whenever there are tools, whatever was asked.
    streamed = {key for key, answer in answers.items() if answer.reply.events is not None}
    assert streamed == {(kind, True) for kind in PROVIDERS} | {("gateway", False)}


@pytest.mark.parametrize("kind", ["azure", "gateway", "openai", "opentools"])
async def test_with_its_result_the_conversation_goes_on_in_words(kind):
    async with simulator.serving(simulator.Settings()) as server:
        asked = await ask(kind, server.url, TALK)
        calls = json.loads(asked.completion.tool_calls or "[]")
        result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "21 degrees, no rain"}
        told = await ask(kind, server.url, [*TALK, {"role": "assistant", "content": None, "tool_calls": calls}, result])

    assert told.completion.tool_calls is None
    assert told.completion.text
