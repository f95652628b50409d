"""Fixtures for everyone."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from faulty_server import FaultyServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FaultyServer]:
    """A loopback server that misbehaves on cue; see `faulty_server`."""
    async with FaultyServer() as running:
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
