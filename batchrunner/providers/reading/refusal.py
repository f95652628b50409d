"""Classifying an error: by its code, then its type, then the status."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.errors import RequestError
from batchrunner.providers.reading.text import dump_json, message
from batchrunner.providers.reading.waits import hint_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.errors import ErrorType, Scope, Verdict


@dataclass(frozen=True, slots=True)
class Kind:
    error_type: ErrorType
    verdict: Verdict
    scope: Scope = "item"


AUTH = Kind("auth", "abort", "run")
BILLING = Kind("billing", "abort", "run")
PERMISSION = Kind("permission", "reject")
NOT_FOUND = Kind("not_found", "abort", "agent")
BAD_REQUEST = Kind("bad_request", "reject")
TOO_LARGE = Kind("too_large", "reject")
CONTEXT = Kind("context_length", "reject")
FILTERED = Kind("content_filter", "reject")
RATE_LIMIT = Kind("rate_limit", "retry", "lane")
CONFLICT = Kind("conflict", "retry")
TIMEOUT = Kind("timeout", "retry")
SERVER = Kind("server", "retry")
OVERLOADED = Kind("overloaded", "retry", "lane")
REDIRECT = Kind("redirect", "abort", "run")
PROVIDER = Kind("provider_error", "retry")

CODES: dict[str, Kind] = {
    "invalid_api_key": AUTH,
    "authentication_error": AUTH,
    "invalid_authentication": AUTH,
    "key_model_access_denied": PERMISSION,
    "permission_denied": PERMISSION,
    "permission_error": PERMISSION,
    "insufficient_quota": BILLING,
    "insufficient_balance": BILLING,
    "budget_exceeded": BILLING,
    "billing_hard_limit_reached": BILLING,
    "billing_not_active": BILLING,
    "context_length_exceeded": CONTEXT,
    "exceed_context_size_error": CONTEXT,
    "string_above_max_length": CONTEXT,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "responsibleaipolicyviolation": FILTERED,
    "moderation_blocked": FILTERED,
    "rate_limit_exceeded": RATE_LIMIT,
    "rate_limit_error": RATE_LIMIT,
    "throttling_error": RATE_LIMIT,
    "tokens": RATE_LIMIT,
    "requests": RATE_LIMIT,
    "capacity_exceeded": OVERLOADED,
    "overloaded_error": OVERLOADED,
    "unavailable_error": OVERLOADED,
    "server_error": SERVER,
    "internal_server_error": SERVER,
    "internal_error": SERVER,
    "session_creation_error": SERVER,
    "session_error": SERVER,
    "session_expired": SERVER,
    "session_not_found": SERVER,
    "retry_failed": SERVER,
    "gateway_error": SERVER,
    "proxy_error": SERVER,
    "provider_error": SERVER,
    "network_error": SERVER,
    "timeout_error": TIMEOUT,
    "empty_response_error": Kind("empty", "retry"),
    "unexpected_empty_response": Kind("empty", "retry"),
    "tool_processing_error": SERVER,
    "billing_error": SERVER,
    "unexpected_response_format": SERVER,
}
"""Words of `error.code`, `error.type` and inner codes that say more than the status. Those of BROAD say less."""

BROAD = frozenset(
    {"server_error", "proxy_error", "provider_error", "gateway_error", "internal_error", "tokens", "requests"}
)
"""Words that servers use for many things: the status goes first."""

STATUSES: dict[int, Kind] = {
    401: AUTH,
    402: BILLING,
    403: PERMISSION,
    404: NOT_FOUND,
    407: AUTH,
    408: TIMEOUT,
    409: CONFLICT,
    413: TOO_LARGE,
    425: CONFLICT,
    429: RATE_LIMIT,
    498: OVERLOADED,
    503: OVERLOADED,
    504: TIMEOUT,
    529: OVERLOADED,
}

SESSION = frozenset({"session_expired", "session_not_found"})
_CONTEXT_WORDS = re.compile(r"(maximum|available) context|context (length|size|window)|too many tokens", re.IGNORECASE)
_UNKNOWN_FIELD = re.compile(r"\bstream_options\b")
_SIGNED_IN = re.compile(
    r"invalid authentication|unauthenticated|authentication (failed|required)|api key", re.IGNORECASE
)
_HIDDEN = re.compile(r'"statusCode"\s*:\s*(429|503)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What an error body says, whatever its shape."""

    words: tuple[str, ...] = ()
    """Code, then type, then inner codes; in lower case."""
    status: int | None = None
    """A status of its own."""
    text: str = ""


def by_status(status: int) -> Kind:
    """The table of WIRE section 7."""
    if 300 <= status < 400:
        return REDIRECT
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return BAD_REQUEST
    return SERVER if status >= 500 else PROVIDER


def open_envelope(body: Any, raw: str) -> Envelope:
    """Read an error body: OpenAI's and the gateway's object, Tess's text, FastAPI's detail, Laravel's message."""
    if not isinstance(body, dict):
        return Envelope(text=raw)
    error = body.get("error")
    if isinstance(error, dict):
        return _from_object(error)
    if error in (None, False, "") and ("detail" in body):
        return Envelope(text=_detail(body["detail"]), words=_words(body.get("type"), body.get("code")))
    status = _status(body.get("statusCode")) or _status(body.get("code"))
    words = _words(body.get("code"), body.get("type"))
    if isinstance(error, str) and error:
        fields = _fields(body.get("messages")) or _fields(body.get("errors"))
        told = body.get("message") if isinstance(body.get("message"), str) else ""
        return Envelope(text=": ".join(filter(None, (error, fields or told))), status=status, words=words)
    if isinstance(body.get("message"), str):
        fields = _fields(body.get("errors"))
        return Envelope(text=": ".join(filter(None, (body["message"], fields))), status=status, words=words)
    return Envelope(text=raw, status=status, words=words)


def _from_object(error: Mapping[str, Any]) -> Envelope:
    inner = error.get("innererror")
    inner_code = inner.get("code") if isinstance(inner, dict) else None
    told = error.get("message")
    text = told if isinstance(told, str) else dump_json(told) if told is not None else ""
    if not text:
        text = ": ".join(str(error[name]) for name in ("type", "code") if error.get(name)) or dump_json(dict(error))
    return Envelope(
        words=_words(error.get("code"), error.get("type"), inner_code),
        status=_status(error.get("status")) or _status(error.get("code")),
        text=text,
    )


def _words(*values: Any) -> tuple[str, ...]:
    return tuple(value.lower() for value in values if isinstance(value, str) and value)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 300 <= value <= 599 else None


def _detail(detail: Any) -> str:
    """FastAPI's detail, without `input`, which may echo the whole prompt."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return dump_json(detail)
    lines = []
    for entry in detail:
        if isinstance(entry, dict):
            where = entry.get("loc")
            place = ".".join(str(step) for step in where) if isinstance(where, list) else ""
            lines.append(": ".join(filter(None, (place, str(entry.get("msg") or entry.get("type") or "")))))
    return "; ".join(lines)


def _fields(messages: Any) -> str:
    if not isinstance(messages, dict):
        return ""
    told = [
        f"{name}: {', '.join(map(str, text)) if isinstance(text, list) else text}" for name, text in messages.items()
    ]
    return "; ".join(told)


def classify(envelope: Envelope, status: int, headers: Mapping[str, str], *, signs_in_by_403: bool) -> Kind:
    """What an error means. A 200 that holds an error goes by the error's own status, else by 500."""
    if status == 400 and (envelope.status in (429, 503) or _HIDDEN.search(envelope.text)):
        return by_status(envelope.status or int((_HIDDEN.search(envelope.text) or [0, 429])[1]))
    effective = status if status != 200 else envelope.status or 0
    kind = _by_words(envelope.words, effective)
    if kind is None and effective in (400, 500, 0) and _CONTEXT_WORDS.search(envelope.text):
        kind = CONTEXT
    if kind is None:
        kind = by_status(effective or 500)
    if effective == 402 and headers.get("retry-after"):
        return RATE_LIMIT
    if effective == 403 and kind is PERMISSION and (signs_in_by_403 or _SIGNED_IN.search(envelope.text)):
        return AUTH
    return kind


def _by_words(words: tuple[str, ...], status: int) -> Kind | None:
    for word in words:
        found = CODES.get(word)
        if found is None or (word in BROAD and status) or (found is RATE_LIMIT and status >= 500):
            continue
        return found
    return None


def refusal(
    body: Any, raw: str, *, status: int, headers: Mapping[str, str], max_wait_s: float, signs_in_by_403: bool = False
) -> RequestError:
    """The RequestError that an error reply stands for."""
    envelope = open_envelope(body, raw)
    kind = classify(envelope, status, headers, signs_in_by_403=signs_in_by_403)
    verdict, scope = kind.verdict, kind.scope
    should = headers.get("x-should-retry", "").lower()
    if should == "false" and verdict == "retry":
        verdict = "reject"
    if should == "true" and verdict == "reject":
        verdict = "retry"
    wait_s = hint_s(headers, body) if verdict == "retry" else None
    if wait_s is not None and wait_s > max_wait_s:
        verdict = "defer"
    text = message(envelope.text) or kind.error_type.replace("_", " ")
    if kind is REDIRECT:
        target = message(headers.get("location", "nowhere"))[:200]
        text = f"redirects to {target}; redirects are not followed, correct provider.base_url"
    without = _without(envelope, status)
    return RequestError(
        f"{status} {text}" if status != 200 else text,
        verdict="retry" if without else verdict,
        error_type=kind.error_type,
        scope=scope if verdict in ("abort", "defer") or kind.scope == "lane" else "item",
        wait_s=wait_s,
        status=status,
        without=without,
    )


def _without(envelope: Envelope, status: int) -> str | None:
    if status in (400, 422) and _UNKNOWN_FIELD.search(envelope.text):
        return "stream_options"
    return "session_id" if SESSION & set(envelope.words) else None
