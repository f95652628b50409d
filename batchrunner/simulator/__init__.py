"""A local API server that speaks every provider's dialect, for trying a pipeline without a key or money.

Everything below one port: Tess at `/agents/{id}/openai/chat/completions` (and under `/api`), the gateway at
`/api/v1/chat/completions`, OpenAI at `/v1/chat/completions`, Azure at `/openai/deployments/{name}/chat/completions`,
and `GET /health`. OpenTools shares OpenAI's path and is answered in OpenAI's shape.

The same seed and the same request body give the same answer, byte for byte. Faults depend on the seed, the
body and how often that body has failed so far, so that a retry can succeed and a run repeats. A Tess agent
with the id 0 or 404404 does not exist. A key that contains "invalid" is refused.
"""

from __future__ import annotations

from batchrunner.simulator.serve import Simulator, serving
from batchrunner.simulator.settings import Settings
from batchrunner.simulator.traffic import Counts

__all__ = ["Counts", "serving", "Settings", "Simulator"]
