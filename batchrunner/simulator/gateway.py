"""The session gateway's dialect: FastAPI's refusals, reset times as dates, streams without `[DONE]`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from batchrunner.simulator.answers import CREATED, pieces
from batchrunner.simulator.base import Problem, Refusal, event, message_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from batchrunner.simulator.allowance import Standing
    from batchrunner.simulator.answers import Answer, Choice
    from batchrunner.simulator.asks import Ask

TYPES = {413: "invalid_request", 429: "requests", 500: "gateway_error", 503: "provider_error"}
PLAIN = {401: "Invalid API key", 404: "Not Found", 405: "Method Not Allowed"}
NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "n", "max_tokens")


class Gateway:
    """Takes any role and drops unknown fields; coerces what pydantic coerces, refuses the rest with 422."""

    name = "gateway"
    key_status = 401
    field_status = 422
    model = "mistral-31-24b"

    def fault(self, body: Mapping[str, Any], target: str) -> Problem | None:
        tools, model = body.get("tools"), body.get("model")
        if tools is not None and not isinstance(tools, list):
            return _invalid("Input should be a valid list", "tools", tools)
        if model is not None and not isinstance(model, str):
            return _invalid("Input should be a valid string", "model", model)
        for name in NUMBERS:
            if not _reads_as_number(body.get(name)):
                return _invalid("Input should be a valid number", name, body[name])
        return message_fault(body, None, 422)

    def refusal(self, problem: Problem) -> Refusal:
        if problem.status == 401:
            return Refusal(body={"detail": PLAIN[401]}, headers={"WWW-Authenticate": "Bearer"})
        if problem.status in PLAIN:
            return Refusal(body={"detail": PLAIN[problem.status]})
        if problem.status == 422:
            return Refusal(body={"detail": [_detail(problem)]})
        error = {"message": problem.message, "type": problem.limit or TYPES[problem.status]}
        if problem.status == 429:
            error["code"] = "rate_limit_exceeded"
        return Refusal(body={"error": error})

    def limit_headers(self, standings: Iterable[Standing], now: datetime) -> dict[str, str]:
        headers = {}
        for standing in standings:
            kind = standing.kind.title()
            headers[f"X-RateLimit-Limit-{kind}"] = str(standing.limit)
            headers[f"X-RateLimit-Remaining-{kind}"] = str(standing.remaining)
            headers[f"X-RateLimit-Reset-{kind}"] = (now + timedelta(seconds=standing.reset_s)).isoformat()
        return headers

    def completion(self, answer: Answer) -> dict[str, Any]:
        return {
            **_head(answer, "chat.completion"),
            "choices": [_choice_body(choice, index) for index, choice in enumerate(answer.choices)],
            "usage": answer.usage,
        }

    def events(self, answer: Answer, ask: Ask) -> list[bytes]:
        head = _head(answer, "chat.completion.chunk")
        events = [
            event({**head, "choices": [{"index": index, "content_filter_results": {}, **step}]})
            for index, choice in enumerate(answer.choices)
            for step in _steps(choice)
        ]
        return [*events, event({**head, "choices": [], "usage": answer.usage})]


def _invalid(message: str, field: str, given: Any) -> Problem:
    return Problem(status=422, message=message, field=field, given=given)


def _detail(problem: Problem) -> dict[str, Any]:
    """One item of pydantic's list, which echoes the offending part of the request."""
    where = [int(part) if part.isdigit() else part for part in (problem.field or "").split(".") if part]
    kind = "missing" if problem.given is None else "value_error"
    return {"type": kind, "loc": ["body", *where], "msg": problem.message, "input": problem.given}


def _reads_as_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return value is None or isinstance(value, int | float)


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer.answer_id}", "object": kind, "created": CREATED, "model": answer.model}


def _choice_body(choice: Choice, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text}
    if choice.tool_calls:
        message["tool_calls"] = list(choice.tool_calls)
    return {"index": index, "message": message, "finish_reason": choice.finish_reason}


def _steps(choice: Choice) -> Iterator[dict[str, Any]]:
    """What each chunk adds to one choice; the finish reason sits on the last fragment."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": piece} for piece in pieces(choice.text or "")]
    for index, call in enumerate(choice.tool_calls):
        deltas += [{"role": "assistant", "tool_calls": [fragment]} for fragment in _fragments(call, index)]
    for delta in deltas[:-1]:
        yield {"delta": delta, "finish_reason": None}
    yield {"delta": deltas[-1], "finish_reason": choice.finish_reason}


def _fragments(call: Mapping[str, Any], index: int) -> Iterator[dict[str, Any]]:
    """Fragments after the first carry an empty id and type, as recorded behind the gateway."""
    yield {"index": index, **call, "function": {**call["function"], "arguments": ""}}
    for piece in pieces(call["function"]["arguments"]):
        yield {"index": index, "id": "", "type": "", "function": {"arguments": piece}}
