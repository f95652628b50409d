"""Tess AI: OpenAI's body on a path that names the agent, and a workspace header. Nothing is added to the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrunner.errors import BadRow, JobError
from batchrunner.providers import building
from batchrunner.providers.building import APART
from batchrunner.providers.openai import OpenAI
from batchrunner.providers.reading import Habits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Endpoint

ROLES = ("system", "user", "assistant")
"""Of the compatible endpoint; its documentation names no others."""
_NO_SYSTEM = "if it is the role system that this agent does not take, put its text into the first user message"
DOCUMENTED = frozenset({"messages", "temperature", "model", "tools", "stream"})


class Tess(OpenAI):
    """Unknown root fields may be an agent's own inputs, so everything goes out as the job says it."""

    name = "tess"
    title = "Tess AI agents"
    base_url = "https://api.tess.im"
    path = "/agents/{agent_id}/openai/chat/completions"
    key_variable = "TESS_API_KEY"
    takes_json_schema = False
    streaming = "if asked for"
    tools = 'text, such as "no-tools"'
    # A public client states one request a second for a token; no official figure is known.
    requests_per_minute = 60.0
    verbatim = True
    habits = Habits(
        # Bad, expired and missing keys are answered with 403 (docs.tess.im/en/errors).
        signs_in_by_403=True,
        advice=(
            ("workspace", "set provider.workspace_id"),
            # One guide says that the role system is unsupported here too; public code sends it.
            (".role", _NO_SYSTEM),
            ("role system", _NO_SYSTEM),
            ("system role", _NO_SYSTEM),
            ("base_url", "the legacy host tess.pareto.io needs /api behind it, api.tess.im does not"),
        ),
    )

    def normalise(self, base_url: str) -> str:
        """Also from the SDK's form, `https://api.tess.im/agents/8794/openai`, whose agent the job names on its own.

        And from that of the native endpoint beside it, which takes other requests.
        """
        url = building.clean_base_url(base_url, ends=("/chat/completions", "/openai", "/execute"))
        steps = urlsplit(url).path.split("/")
        if len(steps) >= 2 and steps[-2] == "agents":
            url = url[: -len("/".join(steps[-2:])) - 1]
        return url.removesuffix("/agents")

    def headers(self, key: str | None, endpoint: Endpoint) -> dict[str, str]:
        headers = super().headers(key, endpoint)
        workspace = endpoint.workspace_id
        if workspace is not None:
            if not workspace.strip().isascii() or not workspace.strip().isdigit():
                raise JobError(f"provider.workspace_id: expected a whole number, got {workspace!r}")
            headers["x-workspace-id"] = workspace.strip()
        return headers

    def warnings(self, endpoint: Endpoint) -> tuple[str, ...]:
        if endpoint.workspace_id is None:
            return ("provider.workspace_id is not set: Tess takes your selected workspace, and will require it later",)
        return ()

    def path_for(self, ask: Mapping[str, Any], endpoint: Endpoint) -> str:
        if ask.get("agent_id") is None:
            raise BadRow("agent_id: expected the id of a Tess agent, got nothing; give --agent-id or a column agent_id")
        return f"/agents/{building.segment(ask['agent_id'], 'agent_id')}/openai/chat/completions"

    def check(self, body: Mapping[str, Any]) -> None:
        for number, message in enumerate(body["messages"]):
            if message["role"] not in ROLES:
                raise BadRow(f"messages[{number}].role: expected {', '.join(ROLES)}, got {message['role']!r}")
        if body.get("tools") is not None and not isinstance(body["tools"], str):
            raise BadRow(f"tools: Tess expects a text such as 'no-tools', got {building.kind_of(body['tools'])}")

    def complete(self, body: dict[str, Any], ask: Mapping[str, Any]) -> None:
        """Nothing: whatever is added could be taken for an input of the agent."""

    def oddities(self, ask: Mapping[str, Any]) -> tuple[str, ...]:
        unknown = sorted(name for name, value in ask.items() if value is not None and name not in DOCUMENTED | APART)
        return tuple(f"{name}: Tess documents no such field; the agent may ignore it" for name in unknown)


PROVIDER = Tess()
