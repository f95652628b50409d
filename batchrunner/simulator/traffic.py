"""What happens to each request, decided in one go when its body has been read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.simulator import asks, plans
from batchrunner.simulator.allowance import Allowance
from batchrunner.simulator.answers import answer
from batchrunner.simulator.base import Problem
from batchrunner.simulator.chance import Dice, latency_s, lot
from batchrunner.simulator.routes import SERVED, route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.simulator.access_log import AccessLog
    from batchrunner.simulator.answers import Answer
    from batchrunner.simulator.asks import Ask
    from batchrunner.simulator.chance import Fault
    from batchrunner.simulator.plans import Plan
    from batchrunner.simulator.routes import Route
    from batchrunner.simulator.settings import Settings

ECHO_DEPTH = 200
"""orjson reads deeper values than it writes; bodies with fewer brackets are safe without a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it came in. Header names are in lower case; `body` None means over the size limit."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def key(self) -> str:
        """The credential, whatever the vendor's way to send it; empty without one."""
        sent = self.headers.get("authorization") or self.headers.get("api-key", "")
        scheme, _, rest = sent.partition(" ")
        return (rest if scheme.lower() == "bearer" else sent).strip()


@dataclass(slots=True)
class Counts:
    """What was answered so far, `/health` left out."""

    requests: int = 0
    by_status: dict[int, int] = field(default_factory=dict)
    by_fault: dict[str, int] = field(default_factory=dict)

    def add(self, status: int, fault: str | None) -> None:
        self.requests += 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        if fault:
            self.by_fault[fault] = self.by_fault.get(fault, 0) + 1


def _utc() -> datetime:
    return datetime.now(UTC)


class Traffic:
    """Decides about every request: key, path, fields, limits, faults, and at last the answer."""

    def __init__(
        self,
        settings: Settings,
        log: AccessLog | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = _utc,
    ) -> None:
        self.counts = Counts()
        self._settings = settings
        self._log = log
        self._monotonic = monotonic
        self._utc = utc
        self._dice = Dice(settings)
        self._allowances: dict[str, Allowance] = {}

    def plan(self, call: Call) -> Plan:
        """How to answer `call`. Books it, counts it and logs it."""
        found, now = route(call.path), self._utc()
        body = _parsed(call.body)
        allowance = self._allowance(call.key)
        plan = self._judged(call, found, body, allowance)
        plan.headers["X-Request-Id"] = f"{self.counts.requests:08x}"
        plan.headers.update(found.dialect.limit_headers(allowance.standings(), now))
        self.counts.add(plan.status, plan.fault)
        if self._log:
            logged = (call.body or b"").decode(errors="replace") if body is None else body
            self._log.add(
                time=now, path=call.path, headers=call.headers, body=logged, status=plan.status, fault=plan.fault
            )
        return plan

    def _judged(self, call: Call, found: Route, body: Any, allowance: Allowance) -> Plan:
        problem = self._problem(call, found, body)
        if problem:
            return plans.refused(found, problem)
        ask, drawn = asks.read(body), lot(self._settings.seed, call.body or b"")
        shortfall = allowance.take(ask.reserved_tokens, now=self._monotonic())
        if shortfall:
            return plans.refused(found, plans.busy(shortfall))
        return self._admitted(found, ask, drawn, allowance)

    def _admitted(self, found: Route, ask: Ask, drawn: bytes, allowance: Allowance) -> Plan:
        fault = self._dice.fault(drawn)
        said = answer(
            ask,
            lot=drawn,
            seed=self._settings.seed,
            model=found.dialect.model,
            invalid_rate=self._settings.invalid_rate,
            length_sigma=self._settings.length_sigma,
        )
        used = 0 if fault == "error" else said.total_tokens
        return replace(
            _reply(found, ask, said, drawn, fault),
            fault=fault,
            latency_s=latency_s(drawn, self._settings.latency_s),
            settle=partial(allowance.settle, reserved=ask.reserved_tokens, used=used),
        )

    def _problem(self, call: Call, found: Route, body: Any) -> Problem | None:
        dialect = found.dialect
        if not found.known:
            return Problem(status=404, message=f"nothing is served at this path; served are {SERVED}")
        if call.method != "POST":
            return Problem(status=405, message=f"expected POST, got {call.method}")
        if "invalid" in call.key or (self._settings.require_key and not call.key):
            return Problem(status=dialect.key_status, message="Incorrect API key provided")
        if call.body is None:
            return Problem(status=413, message="the request body is too large")
        if not isinstance(body, dict):
            return Problem(status=dialect.field_status, message="expected the body to be a JSON object")
        return dialect.fault(body, found.target)

    def _allowance(self, key: str) -> Allowance:
        allowance = self._allowances.get(key)
        if allowance is None:
            settings = self._settings
            allowance = Allowance(settings.requests_per_minute, settings.tokens_per_minute, now=self._monotonic())
            self._allowances[key] = allowance
        return allowance


def _reply(found: Route, ask: Ask, said: Answer, drawn: bytes, fault: Fault | None) -> Plan:
    if fault == "error":
        return plans.refused(found, plans.trouble(drawn))
    if fault == "garbage":
        return plans.garbage(drawn)
    return plans.answered(found, ask, said)


def _parsed(raw: bytes | None) -> Any:
    """The body as JSON; None when it is none, or nested too deep to be logged and echoed."""
    try:
        body = orjson.loads(raw or b"")
        if (raw or b"").count(b"{") + (raw or b"").count(b"[") > ECHO_DEPTH:
            orjson.dumps([[[[[[body]]]]]])
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return body
