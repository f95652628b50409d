"""Which dialect a path belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from batchrunner.simulator.gateway import Gateway
from batchrunner.simulator.openai import Azure, OpenAI
from batchrunner.simulator.tess import Tess

if TYPE_CHECKING:
    from batchrunner.simulator.base import Dialect

ENDING = ["chat", "completions"]
SERVED = (
    "/v1/chat/completions, /api/v1/chat/completions, /agents/{id}/openai/chat/completions, "
    "/openai/deployments/{name}/chat/completions"
)
OPENAI, AZURE, GATEWAY, TESS = OpenAI(), Azure(), Gateway(), Tess()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a request goes."""

    dialect: Dialect
    target: str = ""
    """The agent or deployment that the path names."""
    known: bool = True


NOWHERE = Route(dialect=OPENAI, known=False)


@lru_cache(maxsize=4096)
def route(path: str) -> Route:
    """The route of a raw request path; what nobody serves is refused in OpenAI's words."""
    segments = [unquote(segment) for segment in path.partition("?")[0].split("/")[1:]]
    match segments[:-2] if segments[-2:] == ENDING else ["?"]:
        # Without `/v1` too: some clients are given the bare address as their base URL.
        case [] | ["v1"]:
            return Route(dialect=OPENAI)
        case ["openai", "v1"]:
            return Route(dialect=AZURE)
        case ["openai", "deployments", name]:
            return Route(dialect=AZURE, target=name)
        case ["api", "v1"]:
            return Route(dialect=GATEWAY)
        case ["agents", agent_id, "openai"] | ["api", "agents", agent_id, "openai"]:
            return Route(dialect=TESS, target=agent_id)
        case _:
            return NOWHERE
