"""The session gateway (Morpheus): OpenAI's body with sessions; tools only over streams; one request at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow
from batchrunner.providers import building
from batchrunner.providers.openai import OpenAI
from batchrunner.providers.reading import Habits

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = frozenset({
    "frequency_penalty", "max_tokens", "messages", "model", "n", "presence_penalty", "session_id", "stop", "stream",
    "temperature", "tool_choice", "tools", "top_p",
})  # fmt: skip
"""The body fields of source document 003; others are dropped with a 200 and without a word."""


class Gateway(OpenAI):
    """`stream` is always said, and Accept always says the same."""

    name = "gateway"
    title = "Session gateway (Morpheus)"
    base_url = "https://api.mor.org"
    path = "/api/v1/chat/completions"
    key_variable = "GATEWAY_API_KEY"
    takes_json_schema = False
    streaming = "if asked for; always with tools"
    tools = "array"
    requests_per_key = 1
    # It waits up to 300 s for the node behind it, and opens a session first.
    first_byte_s = 360.0
    note = (
        "one request in flight on each key: its maintainers documented that concurrent requests on one key can"
        " receive each other's answers; provider.requests_per_key lifts that, --concurrency alone does not"
    )
    habits = Habits(
        advice=(
            ("session_not_found", "switch on session automation for the account, or give a session_id"),
            ("model_not_found", "correct request.model"),
        )
    )

    def normalise(self, base_url: str) -> str:
        return building.clean_base_url(base_url, ends=("/chat/completions", "/v1", "/api"))

    def check(self, body: Mapping[str, Any]) -> None:
        building.tools_are_a_list(body)

    def complete(self, body: dict[str, Any], ask: Mapping[str, Any]) -> None:
        # Documented: "Tool calling requires streaming mode and 'text/event-stream' Accept header".
        body["stream"] = bool(body.get("tools")) or body.get("stream") is True
        session_id = building.plain_id(ask.get("session_id"))
        if session_id is not None and "session_id" in body:
            raise BadRow("extra: expected fields that are not given on their own, got 'session_id'")
        if session_id is not None:
            body["session_id"] = session_id

    def oddities(self, ask: Mapping[str, Any]) -> tuple[str, ...]:
        extra = ask.get("extra")
        asked = [name for name, value in ask.items() if value is not None and name not in building.APART]
        unknown = {*asked, *(extra if isinstance(extra, dict) else ())} - KNOWN
        return tuple(f"{name}: the gateway documents no such field and drops it silently" for name in sorted(unknown))


PROVIDER = Gateway()
