"""What each provider's dialect looks like over a real socket."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from batchrunner.simulator import Settings, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.anyio

TESS, GATEWAY, OPENAI = "/agents/8794/openai/chat/completions", "/api/v1/chat/completions", "/v1/chat/completions"
AZURE = "/openai/deployments/d/chat/completions?api-version=2024-10-21"
PATHS = {"tess": TESS, "tess legacy": f"/api{TESS}", "gateway": GATEWAY, "openai": OPENAI, "azure": AZURE}
HELLO = {"model": "m-1", "messages": [{"role": "user", "content": "Tell me about the weather in Lisbon today"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


class Client:
    """Asks one simulator; keeps what the last reply's head said."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session
        self.status, self.headers, self.text = 0, aiohttp.typedefs.CIMultiDictProxy(aiohttp.typedefs.CIMultiDict()), ""

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Any:
        data = body if isinstance(body, str) else json.dumps(body)
        async with self._session.post(self.url + path, data=data, headers=headers) as reply:
            self.status, self.headers, self.text = reply.status, reply.headers, await reply.text()
        return json.loads(self.text) if reply.content_type == "application/json" else self.text

    async def events(self, path: str, **fields: object) -> list[Any]:
        text = await self.post(path, {**HELLO, "stream": True, **fields})
        assert text.endswith("\n\n")
        lines = [event.removeprefix("data: ") for event in text.rstrip("\n").split("\n\n")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@asynccontextmanager
async def client(**settings: Any) -> AsyncIterator[Client]:
    async with serving(Settings(**settings)) as simulator, aiohttp.ClientSession() as session:
        yield Client(simulator.url, session)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_every_dialect_answers_with_text_and_usage(path: str) -> None:
    async with client() as ask:
        body = await ask.post(path, HELLO)

    choice, usage = body["choices"][0], body["usage"]
    assert (ask.status, choice["finish_reason"], body["model"]) == (200, "stop", "m-1")
    assert "Tell me about the weather in" in choice["message"]["content"]
    assert usage["prompt_tokens"] == 11
    assert usage["completion_tokens"] == -(-len(choice["message"]["content"]) // 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_health_is_told_and_not_counted() -> None:
    async with serving(Settings()) as simulator, aiohttp.ClientSession() as session:
        async with session.get(f"{simulator.url}/health") as reply:
            assert reply.status == 200

        assert simulator.counts.requests == 0


async def test_a_tess_agent_without_a_model_answers_as_tess_5() -> None:
    async with client() as ask:
        body = await ask.post(TESS, {"messages": HELLO["messages"], "tenant": "a", "temperature": "0.5"})

    assert body["model"] == "tess-5"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (TESS, 403, {"error": "Invalid authentication"}),
        (GATEWAY, 401, {"detail": "Invalid API key"}),
        (OPENAI, 401, None),
        (AZURE, 401, None),
    ],
)
async def test_a_wrong_key_is_refused_in_each_envelope(path: str, status: int, body: object) -> None:
    async with client() as ask:
        found = await ask.post(path, HELLO, {"Authorization": "Bearer sk-invalid-1"})

    assert ask.status == status
    assert found == body or found["error"]["message"] == "Incorrect API key provided"
    assert ("WWW-Authenticate" in ask.headers) == (path == GATEWAY)


async def test_a_missing_key_is_refused_where_one_is_required() -> None:
    async with client(require_key=True) as ask:
        await ask.post(OPENAI, HELLO)
        without = ask.status
        await ask.post(AZURE, HELLO, {"api-key": "abc"})

    assert (without, ask.status) == (401, 200)


@pytest.mark.parametrize("agent_id", ["0", "404404"])
async def test_a_missing_tess_agent_is_not_found(agent_id: str) -> None:
    async with client() as ask:
        body = await ask.post(f"/agents/{agent_id}/openai/chat/completions", HELLO)

    assert (ask.status, body) == (404, {"error": "Agent not found"})


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        (TESS, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        (TESS, {"messages": [{"role": "developer", "content": "x"}]}, "messages.0.role"),
        (TESS, {"tools": [TOOL]}, "tools"),
        (TESS, {"temperature": "hot"}, "temperature"),
        (TESS, {"stream": "yes"}, "stream"),
        ("/agents/abc/openai/chat/completions", {}, "id"),
        (OPENAI, {"model": None}, "model"),
        (OPENAI, {"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        (OPENAI, {"messages": []}, "messages"),
        (OPENAI, {"messages": ["x"]}, "messages.0"),
        (OPENAI, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (OPENAI, {"tools": "no-tools"}, "tools"),
        (OPENAI, {"temperature": 2.5}, "temperature"),
        (OPENAI, {"max_tokens": 0}, "max_tokens"),
        (OPENAI, {"stream": "yes"}, "stream"),
        (OPENAI, {"stream_options": {"include_usage": True}}, "stream_options"),
        (GATEWAY, {"tools": "no-tools"}, "tools"),
        (GATEWAY, {"temperature": "hot"}, "temperature"),
        (GATEWAY, {"model": 5}, "model"),
        (GATEWAY, {"messages": [{"content": "x"}]}, "messages.0.role"),
    ],
)
async def test_what_a_dialect_refuses_is_named_in_its_envelope(path: str, change: Any, field: str) -> None:
    async with client() as ask:
        body = await ask.post(path, {**HELLO, **change})

    named = {
        "/a": lambda: next(iter(body["messages"])),
        "/v": lambda: body["error"]["param"],
        "/api": lambda: ".".join(map(str, body["detail"][0]["loc"][1:])),
    }
    assert ask.status == (422 if path == GATEWAY else 400)
    assert named["/api" if path == GATEWAY else path[:2]]() == field


@pytest.mark.parametrize(("path", "status"), [(TESS, 400), (GATEWAY, 422), (OPENAI, 400)])
@pytest.mark.parametrize("body", ["", "{", "[1]", "[" * 5_000, '{"messages":' + "[" * 300 + "]" * 300 + "}"])
async def test_a_body_that_is_no_object_is_refused(path: str, status: int, body: str) -> None:
    async with client() as ask:
        await ask.post(path, body)

    assert ask.status == status


async def test_what_nobody_serves_says_what_is_served() -> None:
    async with client() as ask:
        body = await ask.post("/v2/chat/completions", HELLO)

    assert ask.status == 404
    assert "/agents/{id}/openai/chat/completions" in body["error"]["message"]


async def test_only_post_is_taken() -> None:
    async with client() as ask, aiohttp.ClientSession() as session, session.get(ask.url + GATEWAY) as reply:
        assert (reply.status, await reply.json()) == (405, {"detail": "Method Not Allowed"})


async def test_openai_streams_usage_only_when_asked() -> None:
    async with client() as ask:
        plain = await ask.events(OPENAI)
        told = await ask.events(OPENAI, stream_options={"include_usage": True})

    assert plain[-1] == told[-1] == "[DONE]"
    assert all("usage" not in chunk for chunk in plain[:-1])
    assert plain[-2]["choices"][0]["finish_reason"] == "stop"
    assert told[-2]["choices"] == []
    assert told[-2]["usage"]["prompt_tokens"] == 11
    assert all(chunk["usage"] is None for chunk in told[:-2])


async def test_azure_opens_its_stream_with_a_chunk_without_choices() -> None:
    async with client() as ask:
        chunks = await ask.events(AZURE)

    assert (chunks[0]["choices"], chunks[0]["id"], chunks[-1]) == ([], "", "[DONE]")


async def test_tess_streams_text_and_done_without_ids_or_usage() -> None:
    async with client() as ask:
        chunks = await ask.events(TESS)

    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1])
    assert "Tell me about the weather in" in text
    assert {key for chunk in chunks[:-1] for key in chunk} == {"model", "choices"}
    assert chunks[-1] == "[DONE]"


async def test_the_gateway_streams_usage_but_no_done() -> None:
    async with client() as ask:
        chunks = await ask.events(GATEWAY)

    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 11
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


async def test_the_same_tool_call_comes_in_every_dialect_plain_and_streamed() -> None:
    async with client() as ask:
        openai = await ask.post(OPENAI, {**HELLO, "tools": [TOOL]})
        gateway = await ask.post(GATEWAY, {**HELLO, "tools": [TOOL], "temperature": 0})
        streams = [await ask.events(path, tools=[TOOL]) for path in (OPENAI, GATEWAY)]

    calls = openai["choices"][0]["message"]["tool_calls"]
    assert calls == gateway["choices"][0]["message"]["tool_calls"]
    assert calls[0]["function"]["name"] == "look_up"
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Tell me about the weather in", "days": 1}
    assert openai["choices"][0]["finish_reason"] == "tool_calls"
    assert [_joined(chunks) for chunks in streams] == [calls[0], calls[0]]


def _joined(chunks: list[Any]) -> Any:
    parts = [
        call
        for chunk in chunks
        if chunk != "[DONE]"
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    arguments = "".join(part["function"]["arguments"] for part in parts)
    function = {"name": parts[0]["function"]["name"], "arguments": arguments}
    return {"id": parts[0]["id"], "type": parts[0]["type"], "function": function}


async def test_once_a_tool_has_answered_the_model_answers_in_words() -> None:
    messages = [*HELLO["messages"], {"role": "tool", "tool_call_id": "a", "content": "21 degrees"}]

    async with client() as ask:
        body = await ask.post(OPENAI, {**HELLO, "messages": messages, "tools": [TOOL]})

    assert body["choices"][0]["finish_reason"] == "stop"


async def test_openai_tells_limits_with_durations() -> None:
    async with client(requests_per_minute=600, tokens_per_minute=60_000) as ask:
        await ask.post(OPENAI, HELLO)

    head = ask.headers
    assert (head["x-ratelimit-limit-requests"], head["x-ratelimit-remaining-requests"]) == ("600", "9")
    assert head["x-ratelimit-reset-requests"] == "100ms"
    assert (head["x-ratelimit-limit-tokens"], head["x-ratelimit-remaining-tokens"]) == ("60000", "989")


async def test_the_gateway_tells_limits_with_dates() -> None:
    async with client(requests_per_minute=600) as ask:
        await ask.post(GATEWAY, HELLO)

    assert ask.headers["X-RateLimit-Limit-Requests"] == "600"
    assert ask.headers["X-RateLimit-Reset-Requests"][10] == "T"


@pytest.mark.parametrize("path", [TESS, GATEWAY, OPENAI, AZURE])
async def test_above_the_limit_each_dialect_says_when_to_come_back(path: str) -> None:
    async with client(requests_per_minute=20) as ask:
        await ask.post(path, HELLO)
        body = await ask.post(path, HELLO)

    assert (ask.status, ask.headers["Retry-After"]) == (429, "3")
    assert 1_500 < int(ask.headers["retry-after-ms"]) <= 3_000
    if path == TESS:
        assert body == {"error": "Rate limit exceeded", "retry_after": 3}
    else:
        assert body["error"]["code"] == ("429" if path == AZURE else "rate_limit_exceeded")


async def test_limits_are_kept_per_key() -> None:
    async with client(requests_per_minute=20) as ask:
        statuses = []
        for key in ("a", "a", "b"):
            await ask.post(OPENAI, HELLO, {"Authorization": f"Bearer {key}"})
            statuses.append(ask.status)

    assert statuses == [200, 429, 200]
