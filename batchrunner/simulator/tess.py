"""Tess's dialect: an agent in the path, errors as words, the wait in the body, streams without ids or usage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batchrunner.simulator.answers import CREATED, pieces
from batchrunner.simulator.base import DONE, Problem, Refusal, event, message_fault
from batchrunner.simulator.openai import choice_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from batchrunner.simulator.allowance import Standing
    from batchrunner.simulator.answers import Answer
    from batchrunner.simulator.asks import Ask

ROLES = ("system", "user", "assistant")
MISSING_AGENTS = frozenset({"0", "404404"})
"""Agents that do not exist, for trying what a run does then."""
ERRORS = {
    403: "Invalid authentication",
    405: "Method not allowed",
    413: "Payload too large",
    429: "Rate limit exceeded",
    500: "Internal server error",
    503: "Service unavailable",
}


class Tess:
    """Knows three roles and `tools` as a word; any further root field is the agent's own.

    With `tools` set to "agent", the agent calls the first of its `functions`.
    """

    name = "tess"
    key_status = 403
    field_status = 400
    model = "tess-5"

    def fault(self, body: Mapping[str, Any], target: str) -> Problem | None:
        if not (target.isascii() and target.isdigit()):
            return _invalid("The id must be an integer.", "id")
        if target in MISSING_AGENTS:
            return Problem(status=404, message="Agent not found")
        if not isinstance(body.get("tools", ""), str | None):
            return _invalid("The tools must be a string.", "tools")
        if not isinstance(body.get("stream"), bool | None):
            return _invalid("The stream field must be true or false.", "stream")
        if not _fits(body.get("temperature")):
            return _invalid("The temperature must be between 0 and 2.", "temperature")
        return message_fault(body, ROLES, 400)

    def refusal(self, problem: Problem) -> Refusal:
        if problem.status == 400:
            return Refusal(
                body={"error": "Validation failed", "messages": {problem.field or "body": [problem.message]}}
            )
        body: dict[str, Any] = {"error": ERRORS.get(problem.status, problem.message)}
        if problem.wait_s is not None:
            body["retry_after"] = max(1, math.ceil(problem.wait_s))
        return Refusal(body=body)

    def limit_headers(self, standings: Iterable[Standing], now: datetime) -> dict[str, str]:
        """Tess documents none; these are those of the framework it seems to be built on."""
        headers = {}
        for standing in standings:
            ending = "" if standing.kind == "requests" else "-Tokens"
            headers[f"X-RateLimit-Limit{ending}"] = str(standing.limit)
            headers[f"X-RateLimit-Remaining{ending}"] = str(standing.remaining)
            headers[f"X-RateLimit-Reset{ending}"] = str(math.ceil(now.timestamp() + standing.reset_s))
        return headers

    def completion(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{answer.answer_id}",
            "object": "chat.completion",
            "created": CREATED,
            "model": answer.model,
            "choices": [choice_body(choice, index) for index, choice in enumerate(answer.choices)],
            "usage": answer.usage,
        }

    def events(self, answer: Answer, ask: Ask) -> list[bytes]:
        deltas: list[dict[str, Any]] = []
        for choice in answer.choices:
            deltas += [{"content": text} for text in pieces(choice.text or "")]
            deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(choice.tool_calls)]
        return [*(event({"model": answer.model, "choices": [{"delta": delta}]}) for delta in deltas), DONE]


def _invalid(message: str, field: str) -> Problem:
    return Problem(status=400, message=message, field=field)


def _fits(temperature: Any) -> bool:
    """A number or, as in the vendor's own samples, a number as text."""
    if temperature is None:
        return True
    try:
        return 0 <= float(temperature) <= 2
    except (TypeError, ValueError):
        return False
