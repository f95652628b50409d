"""OAuth2 client credentials (RFC 6749 section 4.4): what is asked of a token endpoint, and what it answers.

Pure: whoever holds the wire sends the form. One form and one small reply are all that there is to it, so they
go over the same wire, with the same clocks, proxy and authorities, as everything else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from batchrunner.credentials.secret import Grant, Redactor, Secret
from batchrunner.errors import RequestError

if TYPE_CHECKING:
    from batchrunner.records import Reply

_SENDABLE = re.compile(r"[!-~]+")
_MOST_CHARS = 300
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A key that does not last. `lifetime_s` is None where the endpoint does not say how long it does."""

    secret: Secret
    lifetime_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A request to a token endpoint, split where the wire splits an address."""

    origin: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def token_form(grant: Grant) -> Form:
    """The request for a token. Client id and secret are encoded as RFC 6749 section 2.3.1 has it."""
    fields = {"grant_type": "client_credentials", "scope": grant.scope, "audience": grant.audience}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if grant.auth_method == "client_secret_basic":
        headers["authorization"] = f"Basic {grant.basic.reveal()}"
    else:
        fields |= {"client_id": grant.client_id, "client_secret": grant.client_secret.reveal()}
    url = urlsplit(grant.token_url)
    return Form(
        origin=f"{url.scheme}://{url.netloc}",
        path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        headers=headers,
        body=urlencode({name: value for name, value in fields.items() if value is not None}).encode(),
    )


def read_token(grant: Grant, reply: Reply) -> Token:
    """The token in a reply. Raises RequestError: abort where the client is refused, retry for other trouble."""
    told = _object(reply)
    if reply.status in _PASSING or reply.status >= 500:
        raise _trouble(grant, f"answered {reply.status}", reply)
    if not 200 <= reply.status < 300 or told.get("error"):
        raise RequestError(
            f"the token endpoint {grant.host} refused the client: {_why(grant, told, reply)}; correct provider.oauth2",
            verdict="abort",
            error_type="auth",
            scope="run",
            status=reply.status,
        )
    token, kind = told.get("access_token"), told.get("token_type", "bearer")
    # Some gateways call the type `BearerToken`.
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token) or not str(kind).lower().startswith("bearer"):
        raise _trouble(grant, "gave no access_token of type 'bearer' that a header can carry", reply)
    return Token(secret=Secret(token), lifetime_s=_seconds(told.get("expires_in")))


def _object(reply: Reply) -> dict[str, Any]:
    try:
        told = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _why(grant: Grant, told: dict[str, Any], reply: Reply) -> str:
    """The endpoint's words in one line. Without our secrets before it is cut, which might cut one of them."""
    words = [told[name] for name in ("error", "error_description") if isinstance(told.get(name), str)]
    line = " ".join(": ".join(words).encode("utf-8", "replace").decode().split())
    return Redactor(grant.secrets)(line)[:_MOST_CHARS] or f"status {reply.status}"


def _trouble(grant: Grant, what: str, reply: Reply) -> RequestError:
    # Never `malformed`, which would blame the item: nothing was asked for it yet, and nothing billed.
    return RequestError(
        f"the token endpoint {grant.host} {what}", verdict="retry", error_type="server", status=reply.status
    )


def _seconds(value: Any) -> float | None:
    """A lifetime above 0, also where it is written as text; None for anything else."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None
