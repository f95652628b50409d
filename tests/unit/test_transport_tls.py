"""Certificates are verified, always; `ca_file` adds to whom this machine trusts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from event_loops import anyio_backend  # noqa: F401
from faulty_server import FaultyServer, plain

from batchrunner.errors import JobError, RequestError
from batchrunner.records import Reply, Request
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def sent(base_url: str, ca_file: Path | None) -> Reply:
    async with Wire(clocks=Clocks(), ca_file=ca_file) as wire:
        line = wire.prepare(base_url, {"authorization": "Bearer k"})
        return await wire.send(line, Request(path="/", body=b"{}", stream=False, key="k"))


async def test_a_certificate_nobody_vouches_for_ends_the_run(secure: FaultyServer) -> None:
    with pytest.raises(RequestError) as caught:
        await sent(secure.url, None)

    error = caught.value
    assert (error.verdict, error.error_type, error.scope, error.went_out) == ("abort", "connection", "run", False)
    assert f"the certificate of 127.0.0.1:{secure.port} is not trusted" in str(error)
    assert "provider.ca_file" in str(error)
    assert secure.seen == []


async def test_a_certificate_in_ca_file_is_trusted(secure: FaultyServer, certificate: Path) -> None:
    secure.replies.append(plain("hi"))

    reply = await sent(secure.url, certificate)

    assert (reply.status, len(secure.seen)) == (200, 1)
    assert await secure.quiet()


async def test_a_certificate_for_another_host_ends_the_run(secure: FaultyServer, certificate: Path) -> None:
    with pytest.raises(RequestError, match="is not trusted") as caught:
        await sent(f"https://localhost:{secure.port}", certificate)

    assert (caught.value.verdict, secure.seen) == ("abort", [])


async def test_a_cut_over_tls_is_a_cut(secure: FaultyServer, certificate: Path) -> None:
    secure.replies.append({"body": "{", "end": "cut"})

    assert (await sent(secure.url, certificate)).cut is not None


async def test_tls_to_a_server_without_it_is_tried_again() -> None:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1") as plain_server:
        port = plain_server.sockets[0].getsockname()[1]
        with pytest.raises(RequestError, match="ConnectError: TLS: ") as caught:
            await sent(f"https://127.0.0.1:{port}", None)

    assert (caught.value.verdict, caught.value.error_type, caught.value.went_out) == ("retry", "connection", False)


@pytest.mark.parametrize("text", [None, "no certificate at all"])
def test_a_ca_file_that_cannot_be_read_is_a_fault_of_the_job(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)

    with pytest.raises(JobError, match=r"^provider.ca_file: '.*ca.pem' holds no certificates"):
        Wire(clocks=Clocks(), ca_file=path)
