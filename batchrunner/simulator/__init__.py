"""A local API server that speaks every provider's dialect, for trying a pipeline without a key or money.

Everything below one port: Tess at `/agents/{id}/openai/chat/completions` (and under `/api`), the gateway at
`/api/v1/chat/completions`, OpenAI at `/v1/chat/completions`, Azure at `/openai/deployments/{name}/chat/completions`,
and `GET /health`. OpenTools shares OpenAI's path and is answered in OpenAI's shape.

The same seed and the same request body give the same answer, byte for byte. Faults depend on the seed, the
body and how often that body has failed so far, so that a retry can succeed and a run repeats. A Tess agent
with the id 0 or 404404 does not exist. A key that contains "invalid" is refused.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from batchrunner.simulator.settings import Settings

if TYPE_CHECKING:
    from batchrunner.simulator.serve import Simulator, serving
    from batchrunner.simulator.traffic import Counts

__all__ = ["Counts", "serving", "Settings", "Simulator"]


def __getattr__(name: str) -> Any:
    # A run that only might be simulated does not pay for a server: that takes as long to import as all the rest.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


_HOMES = {"Counts": "traffic", "serving": "serve", "Simulator": "serve"}
