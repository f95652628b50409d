"""Both transports under httpx's interface: for any httpx client, with httpx's exceptions."""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from event_loops import anyio_backend  # noqa: F401
from faulty_server import FaultyServer, plain, streamed

from batchrunner.errors import RequestError
from batchrunner.records import Request
from batchrunner.transport import Clocks, DirectTransport, Wire
from batchrunner.transport.adapter import AiohttpTransport
from batchrunner.transport.translation import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[AiohttpTransport, DirectTransport])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=request.param()) as client:
        yield client


async def test_a_client_of_httpx_gets_its_reply(client: httpx.AsyncClient, server: FaultyServer) -> None:
    server.replies.extend([plain("a"), streamed("b"), {"status": 404, "headers": {"X-Y": ["1", "2"]}, "body": "no"}])

    whole = await client.post(f"{server.url}/x?a=b%20c", json={"messages": []})
    async with client.stream("POST", f"{server.url}/y", json={}) as stream:
        lines = [line async for line in stream.aiter_lines() if line]
    missing = await client.get(f"{server.url}/z")

    assert whole.json()["choices"][0]["message"]["content"] == "a"
    assert lines[-1] == "data: [DONE]"
    assert (missing.status_code, missing.reason_phrase, missing.text) == (404, "Not Found", "no")
    assert missing.headers.get_list("x-y") == ["1", "2"]
    assert [(seen.method, seen.path) for seen in server.seen] == [("POST", "/x?a=b%20c"), ("POST", "/y"), ("GET", "/z")]


async def test_only_the_clients_own_headers_go_out(client: httpx.AsyncClient, server: FaultyServer) -> None:
    request = httpx.Request("GET", f"{server.url}/", headers={"x-one": "1"})

    await client.send(request)

    assert set(server.seen[0].headers) == {"host", "x-one"}


async def test_a_body_may_come_in_pieces(client: httpx.AsyncClient, server: FaultyServer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    await client.post(f"{server.url}/", content=pieces())

    assert server.seen[0].body == b"abcd"


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        ({"end": "no_reply"}, httpx.RemoteProtocolError),
        ({"end": "raw", "raw": "nonsense\r\n\r\n"}, httpx.RemoteProtocolError),
        ({"end": "cut", "body": "{"}, httpx.RemoteProtocolError),
        ({"end": "rst", "body": "{"}, httpx.ReadError),
        ({"end": "refused"}, httpx.ConnectError),
        ({"end": "hang"}, httpx.ReadTimeout),
        ({"end": "raw", "raw": "", "keep": True}, httpx.ReadTimeout),
    ],
    ids=lambda value: value["end"] if isinstance(value, dict) else value.__name__,
)
async def test_trouble_comes_as_httpx_knows_it(
    client: httpx.AsyncClient, server: FaultyServer, reply: Mapping[str, Any], raised: type[Exception]
) -> None:
    server.replies.append(reply)

    with pytest.raises(raised) as caught:
        await client.post(f"{server.url}/", json={}, timeout=httpx.Timeout(5, read=0.3))

    assert str(caught.value)


async def test_a_connect_timeout_is_told_apart(client: httpx.AsyncClient) -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())

        with pytest.raises(httpx.ConnectTimeout):
            await client.get(f"http://127.0.0.1:{deaf.getsockname()[1]}/", timeout=0.1)


def troubles_of_aiohttp() -> list[type[aiohttp.ClientError]]:
    public = [getattr(aiohttp, name) for name in aiohttp.__all__]
    return [kind for kind in public if isinstance(kind, type) and issubclass(kind, aiohttp.ClientError)]


@pytest.mark.parametrize("kind", troubles_of_aiohttp(), ids=lambda kind: kind.__name__)
async def test_every_trouble_of_aiohttp_has_a_meaning(kind: type[aiohttp.ClientError]) -> None:
    error: Any = kind.__new__(kind)
    error.status, error.message, error.args = 400, "told", ("told",)
    error._os_error, error._url, error._description = OSError(111, "told"), "http://", None

    assert isinstance(translated(error, was_sent=True), httpx.TransportError)


async def proxied(proxy: str, base_url: str) -> int:
    async with Wire(clocks=Clocks(first_byte_s=5), proxy=proxy) as wire:
        line = wire.prepare(base_url, {"authorization": "Bearer k"})
        return (await wire.send(line, Request(path="/v1/x", body=b"{}", stream=False, key="k"))).status


async def test_a_proxy_is_asked_for_the_whole_address(server: FaultyServer) -> None:
    server.replies.append(plain("hi"))

    status = await proxied(server.url.replace("//", "//user:pass@"), "http://api.example.test")

    seen = server.seen[0]
    assert (status, seen.path, seen.headers["host"]) == (200, "http://api.example.test/v1/x", "api.example.test")
    assert seen.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'user:pass').decode()}"


async def test_tls_goes_through_a_tunnel_and_the_key_does_not_stop_at_the_proxy(server: FaultyServer) -> None:
    server.replies.append({"status": 407, "body": ""})

    with pytest.raises(RequestError, match=r"cannot connect to api.example.test:443 \(ProxyError: 407 ") as caught:
        await proxied(server.url.replace("//", "//user:secret@"), "https://api.example.test")

    assert (server.seen[0].method, server.seen[0].path) == ("CONNECT", "api.example.test:443")
    assert "authorization" not in server.seen[0].headers
    assert "secret" not in str(caught.value)
    assert (caught.value.verdict, caught.value.went_out) == ("retry", False)


async def test_a_proxy_that_is_down_is_a_connection_error(server: FaultyServer) -> None:
    server.replies.append({"end": "refused"})

    with pytest.raises(RequestError, match="ProxyError: connection refused") as caught:
        await proxied(server.url, "http://api.example.test")

    assert (caught.value.error_type, caught.value.went_out) == ("connection", False)


async def test_another_transport_may_take_the_place(server: FaultyServer) -> None:
    """What a transport does not tell, the wire learns from the reply."""
    server.replies.append(streamed("hi"))
    async with Wire(clocks=Clocks(), transport=httpx.AsyncHTTPTransport()) as wire:
        line = wire.prepare(server.url, {})

        reply = await wire.send(line, Request(path="/", body=b"{}", stream=True, key="k"))

    assert (reply.done, reply.status, server.seen[0].body) == (True, 200, b"{}")
