"""A key that does not show itself, and taking keys out of texts."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MASK = "***"
_TELLS = 12
"""So many first characters of a key are taken out also where the rest is missing."""
_met: set[str] = set()
_BEARER = re.compile(r"(?<=\bbearer)\s+[^\s\"',;<>]+", re.IGNORECASE)


class Secret:
    """A text that shows itself only when asked to `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _met.add(value)

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
    """Takes keys out of texts: as they are, as addresses, JSON and base64 have them, cut short, and any `Bearer …`."""

    def __init__(self, secrets: Iterable[Secret | None]) -> None:
        self._by_start: dict[str, set[str]] = {}
        self.learn(*secrets)

    def learn(self, *secrets: Secret | None) -> None:
        """Take these out of texts, too, from now on."""
        spellings = {_lower(spelling) for secret in secrets if secret for spelling in _spellings(secret.reveal())}
        for spelling in spellings:
            self._by_start.setdefault(spelling[:_TELLS], set()).add(spelling)
        self._by_start = dict(sorted(self._by_start.items(), key=lambda pair: len(pair[0]), reverse=True))

    def __call__(self, text: str) -> str:
        """The same text without secrets."""
        lower = _lower(text)
        for start, spellings in self._by_start.items():
            while (at := lower.find(start)) >= 0:
                # A text may be cut in a key, and its start tells too much.
                end = at + max(_shared(lower[at : at + len(spelling)], spelling) for spelling in spellings)
                text = f"{text[:at]}{_MASK}{text[end:]}"
                lower = f"{lower[:at]}{_MASK}{lower[end:]}"
        return _BEARER.sub(f" {_MASK}", text)


def _lower(text: str) -> str:
    """In small letters, and as long as before: of all characters, one becomes two."""
    return text.replace("\u0130", "i").lower()


def _shared(text: str, whole: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(text, whole, strict=False))
    return next((number for number, (a, b) in pairs if a != b), len(text))


def without_secrets(text: str) -> str:
    """`text` without any secret that this process has met: for what nobody foresaw, such as the traceback of a bug."""
    return Redactor(map(Secret, tuple(_met)))(text)


def _spellings(key: str) -> set[str]:
    """The forms in which a server may echo a key. A text under six characters is no secret, but common words."""
    halves = [part for part in key.split("|") if len(part) >= 20]
    return {form for part in (key, *halves) for form in _forms(part) if len(form) >= 6}


def _forms(part: str) -> Iterator[str]:
    """As it stands in a text, an address, JSON, PHP's JSON, a page, and in the base64 of any text around it."""
    in_json = json.dumps(part)[1:-1]
    yield from (part, quote(part, safe=""), quote_plus(part), in_json, in_json.replace("/", r"\/"), html.escape(part))
    for before in range(3):
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            coded = code(b"\0" * before + part.encode()).decode().rstrip("=")
            # The first and the last character may hold bits of what stands around.
            yield coded[(before * 8 + 5) // 6 : -1]
