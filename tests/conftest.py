"""Fixtures for everyone."""

from __future__ import annotations

import inspect
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from faulty_server import FaultyServer
from real.needs import lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FaultyServer]:
    """A loopback server that misbehaves on cue; see `faulty_server`."""
    async with FaultyServer() as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signed itself; its key is beside it."""
    if shutil.which("openssl") is None:
        lacking("openssl", "apt-get install openssl")
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", path.with_name("key.pem"), "-out", path], check=True, capture_output=True
    )
    return path


@pytest.fixture
async def secure(anyio_backend: str, certificate: Path) -> AsyncIterator[FaultyServer]:
    """The same server over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with FaultyServer(ssl_context=context) as running:
        yield running


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Inside the event loop of an async test, a blocking call by the package fails the test."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    with blockbuster_ctx("batchrunner"):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests are given longer than the default before they count as hung."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(240))
