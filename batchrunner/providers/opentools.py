"""OpenTools: OpenAI's body with hosted tools that the server runs itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow
from batchrunner.providers import building
from batchrunner.providers.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Mapping


class OpenTools(OpenAI):
    """Tools pass verbatim, also `{"type": "mcp", "ref": ...}`."""

    name = "opentools"
    title = "OpenTools"
    base_url = "https://api.opentools.com"
    path = "/v1/chat/completions"
    key_variable = "OPENTOOLS_API_KEY"
    takes_json_schema = False
    streaming = "if asked for"
    tools = "array, hosted ones too"
    # One request is a loop of up to nine model calls on the server (opentools.com/docs/api-reference/architecture).
    first_byte_s = 600.0

    def normalise(self, base_url: str) -> str:
        return building.clean_base_url(base_url, ends=("/chat/completions", "/v1"))

    def check(self, body: Mapping[str, Any]) -> None:
        super().check(body)
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(body.get(name), str):
                raise BadRow(f"{name}: expected a whole number of at least 1, got {building.kind_of(body[name])}")
        choice = body.get("tool_choice")
        if choice is not None and not isinstance(choice, dict):
            raise BadRow(f"tool_choice: OpenTools expects an object, got {building.kind_of(choice)}")

    def complete(self, body: dict[str, Any], ask: Mapping[str, Any]) -> None:
        """Nothing: its documentation names no stream_options."""


PROVIDER = OpenTools()
