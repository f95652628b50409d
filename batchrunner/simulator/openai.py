"""OpenAI's dialect, which OpenTools shares, and Azure's variant of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batchrunner.simulator.answers import CREATED, pieces
from batchrunner.simulator.base import DONE, Problem, Refusal, event, message_fault, number_fault, whole_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from batchrunner.simulator.allowance import Standing
    from batchrunner.simulator.answers import Answer, Choice
    from batchrunner.simulator.asks import Ask

ROLES = ("developer", "system", "user", "assistant", "tool", "function")
TYPES = {429: "requests", 500: "server_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 404: "not_found"}
USAGE_DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


class OpenAI:
    """Strict about types and roles, tells limits in headers, reports usage of a stream when asked."""

    name = "openai"
    key_status = 401
    field_status = 400
    model = "gpt-4o"
    model_required = True

    def fault(self, body: Mapping[str, Any], target: str) -> Problem | None:
        stream, model = body.get("stream"), body.get("model")
        if self.model_required and not (isinstance(model, str) and model):
            return self._refused("you must provide a model parameter", "model", model)
        if stream is not None and not isinstance(stream, bool):
            return self._refused(f"expected true or false, got {stream!r}", "stream", stream)
        if body.get("stream_options") is not None and not stream:
            wanted = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
            return self._refused(wanted, "stream_options", body["stream_options"])
        return message_fault(body, ROLES, 400) or self._tools_fault(body) or _numbers_fault(body)

    def _tools_fault(self, body: Mapping[str, Any]) -> Problem | None:
        tools = body.get("tools")
        if tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
            return None
        return self._refused("expected a list of objects", "tools", tools)

    def _refused(self, message: str, field: str, given: object) -> Problem:
        return Problem(status=400, message=message, field=field, given=given)

    def refusal(self, problem: Problem) -> Refusal:
        error = {
            "message": problem.message,
            "type": problem.limit or TYPES.get(problem.status, "invalid_request_error"),
            "param": problem.field,
            "code": CODES.get(problem.status),
        }
        return Refusal(body={"error": error})

    def limit_headers(self, standings: Iterable[Standing], now: datetime) -> dict[str, str]:
        headers = {}
        for standing in standings:
            headers[f"x-ratelimit-limit-{standing.kind}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{standing.kind}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{standing.kind}"] = duration(standing.reset_s)
        return headers

    def completion(self, answer: Answer) -> dict[str, Any]:
        return {
            **_head(answer, "chat.completion"),
            "choices": [choice_body(choice, index) for index, choice in enumerate(answer.choices)],
            "usage": {**answer.usage, **USAGE_DETAILS},
        }

    def events(self, answer: Answer, ask: Ask) -> list[bytes]:
        head = _head(answer, "chat.completion.chunk")
        usage = {"usage": None} if ask.include_usage else {}
        events = [
            event({**head, "choices": [{"index": index, **step, "logprobs": None}], **usage})
            for index, choice in enumerate(answer.choices)
            for step in _steps(choice)
        ]
        if ask.include_usage:
            events.append(event({**head, "choices": [], "usage": {**answer.usage, **USAGE_DETAILS}}))
        return [*events, DONE]


class Azure(OpenAI):
    """OpenAI's dialect behind a deployment: the path names the model, codes are status numbers."""

    name = "azure"
    model_required = False

    def refusal(self, problem: Problem) -> Refusal:
        return Refusal(body={"error": {"code": str(problem.status), "message": problem.message}})

    def events(self, answer: Answer, ask: Ask) -> list[bytes]:
        # Azure opens with a chunk that has no choices and no id.
        filtered = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
        return [event(filtered), *super().events(answer, ask)]


def choice_body(choice: Choice, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool_calls:
        message["tool_calls"] = list(choice.tool_calls)
    return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}


def duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, left = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{left}s" if minutes else f"{left}s"


def _numbers_fault(body: Mapping[str, Any]) -> Problem | None:
    return (
        number_fault(body, "temperature", 0, 2, 400)
        or number_fault(body, "top_p", 0, 1, 400)
        or whole_fault(body, "max_tokens", math.inf, 400)
        or whole_fault(body, "max_completion_tokens", math.inf, 400)
        or whole_fault(body, "n", 128, 400)
    )


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.answer_id}",
        "object": kind,
        "created": CREATED,
        "model": answer.model,
        "system_fingerprint": "fp_simulator",
    }


def _steps(choice: Choice) -> Iterator[dict[str, Any]]:
    """What each chunk adds to one choice; the finish reason comes last and alone."""
    yield {"delta": {"role": "assistant", "content": None if choice.tool_calls else ""}, "finish_reason": None}
    for piece in pieces(choice.text or ""):
        yield {"delta": {"content": piece}, "finish_reason": None}
    for index, call in enumerate(choice.tool_calls):
        opening = {"index": index, **call, "function": {**call["function"], "arguments": ""}}
        yield {"delta": {"tool_calls": [opening]}, "finish_reason": None}
        for piece in pieces(call["function"]["arguments"]):
            fragment = {"index": index, "function": {"arguments": piece}}
            yield {"delta": {"tool_calls": [fragment]}, "finish_reason": None}
    yield {"delta": {}, "finish_reason": choice.finish_reason}
