"""The server that the other tests lean on: what it records, and that it stops."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from faulty_server import FaultyServer, plain, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


def ask(url: str, **fields: object) -> dict[str, object]:
    body = json.dumps({"messages": [{"role": "user", "content": "ping"}], **fields}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=5) as reply:
        answer: dict[str, object] = json.load(reply)
    return answer


def test_a_test_without_an_event_loop_is_served_from_a_thread() -> None:
    with serve_in_thread() as server:
        answer = ask(f"{server.url}/v1/chat/completions", model="x")

        assert "echo: ping" in json.dumps(answer)
        assert (answer["model"], server.seen[0].json()["model"], server.max_in_flight) == ("x", "x", 1)
        port = server.port
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0
    assert [thread for thread in threading.enumerate() if thread is not threading.main_thread()] == []


def test_a_refusal_from_another_thread_holds_at_once_and_ends() -> None:
    with serve_in_thread() as server:
        server.replies.extend([{"end": "refused", "pause_ms": 100}, plain("back")])

        with pytest.raises(urllib.error.URLError, match="refused"):
            ask(server.url)
        anyio.run(anyio.sleep, 0.2)

        assert "back" in json.dumps(ask(server.url))


@pytest.mark.anyio
async def test_requests_in_flight_are_counted(server: FaultyServer, client: httpx.AsyncClient) -> None:
    server.latency_s = 0.1

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(client.post, server.url)

    assert (server.max_in_flight, server.in_flight, len(server.seen)) == (5, 0, 5)
    assert sorted(seen.in_flight for seen in server.seen) == [1, 2, 3, 4, 5]


@pytest.mark.anyio
async def test_replies_by_address_go_before_the_queue(server: FaultyServer, client: httpx.AsyncClient) -> None:
    server.replies.append({"status": 500})
    server.replies_by_url["/agents/1/"] = {"status": 404}

    statuses = [(await client.post(server.url + path)).status_code for path in ("/agents/1/x", "/agents/2/x")]

    assert statuses == [404, 500]


@pytest.mark.anyio
async def test_a_server_stops_while_it_hangs(client: httpx.AsyncClient) -> None:
    async with FaultyServer() as server, anyio.create_task_group() as group:
        server.default = {"end": "hang"}
        group.start_soon(expect_trouble, client, server.url)
        await anyio.sleep(0.1)
        assert server.open_connections == 1
        await server.__aexit__()

    assert server.open_connections == 0


async def expect_trouble(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.TransportError):
        await client.post(url)
