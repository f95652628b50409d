"""A provider of one's own, as the README tells it: one file, here a server that wants its model in a header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.providers.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Endpoint


class Own(OpenAI):
    name = "own"
    title = "A server in the next room"
    base_url = None
    path = "/ask/{agent_id}"
    key_variable = "OWN_API_KEY"
    requests_per_minute = 600.0

    def path_for(self, ask: Mapping[str, Any], endpoint: Endpoint) -> str:
        return f"/ask/{ask['agent_id']}"


PROVIDER = Own()
