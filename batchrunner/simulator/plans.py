"""How a request is answered: the head, the body, and what goes wrong on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from batchrunner.simulator.base import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.simulator.allowance import Shortfall
    from batchrunner.simulator.answers import Answer
    from batchrunner.simulator.asks import Ask
    from batchrunner.simulator.chance import Fault
    from batchrunner.simulator.routes import Route

JSON, SSE, HTML = "application/json", "text/event-stream", "text/html; charset=utf-8"
PAGE = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works</h1></body></html>"
TROUBLE = (
    Problem(status=500, message="The server had an error while processing your request"),
    Problem(status=503, message="The engine is currently overloaded, please try again later"),
)
GARBAGE = ((HTML, PAGE), (JSON, b'{"id":"chatcmpl-1","choices":[{"index":0,"mess'), (JSON, b'{"ok":true}'), (JSON, b""))
"""A page, half a reply, a reply to something else, nothing."""


def nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a request is answered. `blocks` are written one after another; `fault` cuts or withholds them."""

    status: int
    headers: dict[str, str]
    blocks: list[bytes]
    streamed: bool = False
    fault: Fault | None = None
    latency_s: float = 0.0
    settle: Callable[[], None] = nothing
    """Puts the real usage on the key's account, once the answer is there; a refused request has none."""


def busy(shortfall: Shortfall) -> Problem:
    message = f"Rate limit reached for {shortfall.kind} per minute; try again in {shortfall.wait_s:.3f}s"
    return Problem(status=429, message=message, limit=shortfall.kind, wait_s=shortfall.wait_s)


def trouble(drawn: bytes) -> Problem:
    return TROUBLE[drawn[30] % len(TROUBLE)]


def refused(found: Route, problem: Problem) -> Plan:
    refusal = found.dialect.refusal(problem)
    headers = {"Content-Type": JSON, **refusal.headers}
    if problem.wait_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.wait_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(problem.wait_s * 1000)))
    return Plan(status=problem.status, headers=headers, blocks=[orjson.dumps(refusal.body)])


def garbage(drawn: bytes) -> Plan:
    kind, page = GARBAGE[drawn[31] % len(GARBAGE)]
    return Plan(status=200, headers={"Content-Type": kind}, blocks=[page])


def answered(found: Route, ask: Ask, said: Answer) -> Plan:
    if ask.stream:
        return Plan(status=200, headers={"Content-Type": SSE}, blocks=found.dialect.events(said, ask), streamed=True)
    body = orjson.dumps(found.dialect.completion(said))
    return Plan(status=200, headers={"Content-Type": JSON}, blocks=[body])
