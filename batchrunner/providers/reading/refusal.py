"""Classifying an error: by its code, then its type, then the status."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrunner.errors import RequestError
from batchrunner.providers.reading.envelope import error_in, open_envelope
from batchrunner.providers.reading.text import MOST_CHARS, message
from batchrunner.providers.reading.usage import read_usage, reported
from batchrunner.providers.reading.waits import hint_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.errors import ErrorType, Scope, Verdict
    from batchrunner.providers.reading.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Kind:
    error_type: ErrorType
    verdict: Verdict
    scope: Scope = "item"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Where a vendor's errors differ from the table."""

    signs_in_by_403: bool = False
    """A wrong key is answered with 403."""
    advice: tuple[tuple[str, str], ...] = ()
    """A word of the error, and what to do about it."""


NO_HABITS = Habits()

AUTH = Kind("auth", "abort", "run")
BILLING = Kind("billing", "abort", "run")
PERMISSION = Kind("permission", "reject")
NOT_FOUND = Kind("not_found", "abort", "agent")
NO_SUCH_PAGE = Kind("not_found", "abort", "run")
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

DECISIVE: dict[str, Kind] = {
    "authentication_error": AUTH,
    "invalid_api_key": AUTH,
    "invalid_authentication": AUTH,
    "billing_hard_limit_reached": BILLING,
    "billing_not_active": BILLING,
    "exceeded_current_quota_error": BILLING,
    "budget_exceeded": BILLING,
    "insufficient_balance": BILLING,
    "insufficient_credits": BILLING,
    "insufficient_quota": BILLING,
    "insufficient_user_quota": BILLING,
    "context_length_exceeded": CONTEXT,
    "context_window_exceeded": CONTEXT,
    "exceed_context_size_error": CONTEXT,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "moderation_blocked": FILTERED,
    "responsibleaipolicyviolation": FILTERED,
    "session_expired": SERVER,
    "session_not_found": SERVER,
}
"""Words of `error.code`, `error.type` and inner codes that say more than any status."""

PACE = frozenset(
    {"rate_limit_error", "rate_limit_exceeded", "requests", "throttling_error", "tokens", "too_many_requests"}
)
"""Words for a rate limit. A 413 or 503 with one of them is a 413 or 503 all the same."""

STREAMED: dict[str, Kind] = {
    "bad_request_error": BAD_REQUEST,
    "invalid_request": BAD_REQUEST,
    "invalid_request_error": BAD_REQUEST,
    "validation_failed": BAD_REQUEST,
    "model_not_found": NOT_FOUND,
    "not_found_error": NOT_FOUND,
    "permission_denied": PERMISSION,
    "permission_error": PERMISSION,
    "request_too_large": TOO_LARGE,
    "capacity_exceeded": OVERLOADED,
    "engine_overloaded": OVERLOADED,
    "overloaded_error": OVERLOADED,
    "unavailable_error": OVERLOADED,
    "timeout_error": TIMEOUT,
}
"""Words that stand in for the status where an error comes inside a 200 without one; all others mean a 500."""

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
_CONTEXT = re.compile(
    r"(maximum|available) context|context.(length|size|window)|too many (input )?tokens|prompt is too long",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content.(filter|management policy|policy)|safety system", re.IGNORECASE)
_SIGNED_IN = re.compile(
    r"invalid authentication|unauthenticated|not authenticated|authentication (failed|required)"
    r"|(invalid|incorrect|missing) api key",
    re.IGNORECASE,
)


def refusal(
    body: Any, raw: str, *, status: int, headers: Mapping[str, str], max_wait_s: float, habits: Habits = NO_HABITS
) -> RequestError:
    """The RequestError that an error reply stands for; an error inside a 200 likewise."""
    envelope = open_envelope(body, raw)
    kind = classify(envelope, status, headers, habits)
    without = _without(envelope, status)
    verdict = "retry" if without else _verdict(kind, headers)
    wait_s = hint_s(headers, error_in(body) or body) if verdict == "retry" and not without else None
    if wait_s is not None and wait_s > max_wait_s:
        verdict = "defer"
    usage = read_usage(reported(body)) if isinstance(body, dict) else read_usage(None)
    return RequestError(
        _told(envelope, kind, status, headers, habits),
        verdict=verdict,
        error_type=kind.error_type,
        scope="item" if without else kind.scope,
        wait_s=0.0 if without == "stream_options" else wait_s,
        status=status,
        without=without,
        went_out=is_success(status),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def is_success(status: int) -> bool:
    return 200 <= status < 300


def classify(envelope: Envelope, status: int, headers: Mapping[str, str], habits: Habits) -> Kind:
    """What an error means. One inside a 200 goes by its own status, else its type, else 500."""
    effective = _effective(envelope, status)
    if effective == 402 and (headers.get("retry-after") or headers.get("retry-after-ms")):
        return RATE_LIMIT
    kind = _by_words(envelope, effective) or by_status(effective or 500)
    if effective == 401 and kind.verdict != "abort":
        return AUTH
    if kind is PERMISSION and (habits.signs_in_by_403 or _SIGNED_IN.search(envelope.text)):
        return AUTH
    return NO_SUCH_PAGE if kind is NOT_FOUND and envelope.page else kind


def _effective(envelope: Envelope, status: int) -> int:
    """The status that counts; 0 where a 200 holds an error that names none."""
    if is_success(status):
        return envelope.status or 0
    if status == 400:
        return envelope.folded or (envelope.status if envelope.status in (429, 503) else None) or status
    return 429 if status >= 500 and envelope.status == 429 else status


def _by_words(envelope: Envelope, status: int) -> Kind | None:
    for word in envelope.words:
        if word in DECISIVE:
            return DECISIVE[word]
    if status in (0, 400, 403, 500) and PACE & set(envelope.words):
        return RATE_LIMIT
    if status in (0, 400, 422, 500) and _CONTEXT.search(envelope.text):
        return CONTEXT
    if status == 400 and _FILTER.search(envelope.text):
        return FILTERED
    return next((STREAMED[word] for word in envelope.words if word in STREAMED), None) if status == 0 else None


def by_status(status: int) -> Kind:
    """The table of WIRE section 7."""
    if 300 <= status < 400:
        return REDIRECT
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return BAD_REQUEST
    return SERVER if 500 <= status < 600 else PROVIDER


def _verdict(kind: Kind, headers: Mapping[str, str]) -> Verdict:
    should = headers.get("x-should-retry", "").strip().lower()
    if should == "false" and kind.verdict == "retry":
        return "reject"
    return "retry" if should == "true" and kind.verdict == "reject" else kind.verdict


def _without(envelope: Envelope, status: int) -> str | None:
    """The field whose absence may cure it."""
    if status in (400, 422) and "stream_options" in envelope.text:
        return "stream_options"
    return "session_id" if status != 401 and SESSION & set(envelope.words) else None


def _told(envelope: Envelope, kind: Kind, status: int, headers: Mapping[str, str], habits: Habits) -> str:
    text = message(envelope.text) or kind.error_type.replace("_", " ")
    if kind is REDIRECT:
        # Only the host: the rest of an address may hold a token.
        host = urlsplit(headers.get("location", "").split("?")[0][:200].replace("[", "")).netloc.split("@")[-1]
        text = message(f"redirects to {host or 'another path'}; never followed, correct provider.base_url")
    if kind is NO_SUCH_PAGE:
        text = f"{text}; see that provider.base_url is right"
    said = f"{' '.join(envelope.words)} {text}".lower()
    advice = next((f"; {what}" for word, what in habits.advice if word in said), "")
    told = text if is_success(status) else f"{status} {text}"
    return told[: MOST_CHARS - len(advice)] + advice
