"""What a key may still send: requests and tokens per minute, handed out evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CAPACITY_S = 1.0
"""A rested key may send this much of its allowance at once: never a whole minute's."""
JITTER_S = 0.25
"""An even sender may be this early without being refused."""

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a key stands with one limit, as rate-limit headers tell it."""

    kind: Kind
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Which limit is used up, and when another request fits."""

    kind: Kind
    wait_s: float


class Bucket:
    """A token bucket of one second's allowance (at least 1). Refused requests cost nothing.

    An amount larger than the bucket is admitted when the bucket is nearly full and leaves a debt,
    so the long-term rate is exact whatever the amounts.
    """

    __slots__ = ("_at", "_capacity", "_level", "_per_s", "kind", "per_minute")

    def __init__(self, kind: Kind, per_minute: float, *, now: float) -> None:
        self.kind: Kind = kind
        self.per_minute = per_minute
        self._per_s = per_minute / 60.0
        self._capacity = max(1.0, self._per_s * CAPACITY_S)
        self._level = self._capacity
        self._at = now

    def wait_s(self, amount: float, *, now: float) -> float:
        """Seconds until `amount` is admitted; 0 when it is now."""
        self._fill(now)
        needed = min(amount, self._capacity - JITTER_S * self._per_s)
        return max(0.0, (needed - self._level) / self._per_s)

    def take(self, amount: float) -> None:
        self._level -= amount

    def give_back(self, amount: float) -> None:
        self._level = min(self._capacity, self._level + amount)

    def standing(self) -> Standing:
        return Standing(
            kind=self.kind,
            limit=max(1, int(self.per_minute)),
            remaining=max(0, int(self._level)),
            reset_s=(self._capacity - self._level) / self._per_s,
        )

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._per_s)
        self._at = now


class Allowance:
    """The limits of one key."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, *, now: float) -> None:
        self._requests = Bucket("requests", requests_per_minute, now=now) if requests_per_minute else None
        self._tokens = Bucket("tokens", tokens_per_minute, now=now) if tokens_per_minute else None

    def take(self, tokens: int, *, now: float) -> Shortfall | None:
        """Admit a request of about `tokens`, or say what it lacks."""
        waits = [
            Shortfall(kind=bucket.kind, wait_s=wait_s)
            for bucket, amount in ((self._requests, 1), (self._tokens, tokens))
            if bucket and (wait_s := bucket.wait_s(amount, now=now)) > 0
        ]
        if waits:
            return max(waits, key=lambda shortfall: shortfall.wait_s)
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens)
        return None

    def settle(self, *, reserved: int, used: int) -> None:
        """Put the real usage in place of the estimate."""
        if self._tokens:
            self._tokens.give_back(reserved - used)

    def standings(self) -> list[Standing]:
        return [bucket.standing() for bucket in (self._requests, self._tokens) if bucket]
