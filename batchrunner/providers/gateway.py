"""The session gateway (Morpheus): OpenAI's body with sessions; tools only over streams; one request at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.providers import building
from batchrunner.providers.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Mapping


class Gateway(OpenAI):
    """`stream` is always said, and Accept always says the same."""

    name = "gateway"
    title = "Session gateway (Morpheus)"
    base_url = "https://api.mor.org"
    path = "/api/v1/chat/completions"
    key_variable = "GATEWAY_API_KEY"
    streaming = "if asked for; always with tools"
    tools = "array"
    # Its maintainers documented that concurrent requests on one key can receive each other's answers.
    requests_per_key = 1

    def normalise(self, base_url: str) -> str:
        return building.clean_base_url(base_url, ends=("/chat/completions", "/api/v1"))

    def check(self, body: Mapping[str, Any]) -> None:
        building.tools_are_a_list(body)

    def complete(self, body: dict[str, Any], ask: Mapping[str, Any]) -> None:
        body["stream"] = bool(body.get("tools")) or body.get("stream") is True
        if ask.get("session_id") is not None:
            body["session_id"] = str(ask["session_id"])


PROVIDER = Gateway()
