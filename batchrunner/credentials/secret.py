"""A key that does not show itself, and taking keys out of texts."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MASK = "***"
_BEARER = re.compile(r"(?<=\bbearer)\s+[^\s\"',;<>]+", re.IGNORECASE)


class Secret:
    """A text that shows itself only when asked to `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the wire and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    def __str__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who we are to a token endpoint."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | None = None
    audience: str | None = None
    auth_method: str = "client_secret_basic"

    @property
    def host(self) -> str:
        return urlsplit(self.token_url).netloc

    @property
    def basic(self) -> Secret:
        """Client id and secret as a header has them (RFC 6749 section 2.3.1)."""
        pair = ":".join(map(quote_plus, (self.client_id, self.client_secret.reveal())))
        return Secret(base64.b64encode(pair.encode()).decode())

    @property
    def secrets(self) -> tuple[Secret, Secret]:
        """What must stand in no text: an endpoint may echo the one or the other."""
        return self.client_secret, self.basic


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One key and where it came from. No key means: ask without one."""

    key: Secret | None
    source: str
    """The variable's name, `file:PATH`, `command:PROGRAM` or `none`."""
    label: str
    """For messages and lanes; no two credentials of a job share one."""
    warnings: tuple[str, ...] = ()
    again: Callable[..., Credential] | None = None
    """Looks the key up once more: whoever keeps it may have changed it. Raises JobError.

    It may take a while, and calls `check` meanwhile, which may raise to give it up.
    """
    grant: Grant | None = None
    """How to be given a key that does not last; there is no `key` then."""


NO_KEY = (Credential(key=None, source="none", label="no key"),)
"""For a job that asks without a key."""


class Redactor:
    """Takes keys out of texts: the exact values, as they stand in addresses and JSON too, and any `Bearer …`."""

    def __init__(self, secrets: Iterable[Secret | None]) -> None:
        self._exact: dict[str, re.Pattern[str]] = {}
        self.learn(*secrets)

    def learn(self, *secrets: Secret | None) -> None:
        """Take these out of texts, too, from now on."""
        spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret.reveal())}
        # One pattern each: a pattern of all would be compiled anew for every token of a long run.
        new = {value: re.compile(re.escape(value), re.IGNORECASE) for value in spellings - self._exact.keys()}
        self._exact = dict(sorted({**self._exact, **new}.items(), key=lambda pair: len(pair[0]), reverse=True))

    def __call__(self, text: str) -> str:
        """The same text without secrets."""
        for pattern in self._exact.values():
            text = pattern.sub(_MASK, text)
        return _BEARER.sub(f" {_MASK}", text)


def _spellings(key: str) -> set[str]:
    """The forms in which a server may echo a key. A text under six characters is no secret, but common words."""
    halves = [part for part in key.split("|") if len(part) >= 20]
    parts = (key, *halves)
    forms = {form for part in parts for form in (part, quote(part, safe=""), quote_plus(part), json.dumps(part)[1:-1])}
    return {form for form in forms if len(form) >= 6}
