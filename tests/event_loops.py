"""A fixture for tests of sockets: they run on both event loops. Importing it is enough."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(
    params=["asyncio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=pytest.mark.slow)]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
