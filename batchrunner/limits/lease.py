"""One allowance for several processes, handed out in slices: who takes one has the whole rate for its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from batchrunner.limits.pace import SLACK, at_once, kept_interval_s
from batchrunner.records import fact

if TYPE_CHECKING:
    from collections.abc import Mapping

SLICE_S = 0.25
"""How long a whole slice is, but for a single request that is worth more: what a holder loses by dying.

Who cannot send as fast as the rate takes less of the allowance, and has it for as long."""
RULES_S = 10.0
"""So long the lowest rate that anybody has named counts for all, after it was last named."""


@fact(frozen=True, slots=True, kw_only=True)
class Want:
    """What a process asks a slice for. The rates are a lane's whole allowance, as far as this process knows it."""

    per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests: int = 1
    tokens: int = 0
    """How much is likely to be used, of a whole slice at most; of tokens at least the estimate of what goes first."""
    spare_s: float = 0.0
    """What was left of a slice that was not a whole one, as time at the rate of requests."""
    owed_s: float = 0.0
    """What was used beyond earlier slices, as time at the rate of tokens; less than 0 where less was used."""
    pause_s: float = 0.0
    """How long the server has asked to wait."""


@fact(frozen=True, slots=True, kw_only=True)
class Slice:
    """So much, at these rates, from `starts_in_s` on; nothing while the lane is paused."""

    starts_in_s: float = 0.0
    requests: int | None = None
    """None: as many as one likes."""
    tokens_s: float = 0.0
    """The time at the rate of tokens that is paid for."""
    per_minute: float | None = None
    tokens_per_minute: float | None = None
    paused_s: float = 0.0


class Lease(Protocol):
    """An allowance that several processes share, lane by lane."""

    async def take(self, lane: str, want: Want) -> Slice:
        """The next slice that is free; it is the taker's, used or not. Raises StoreError."""

    def pause(self, lane: str, seconds: float) -> None:
        """Let nobody take a slice for so long. Returns at once, and may be late."""


@dataclass(slots=True)
class Rate:
    """The lowest rate that the processes name: a higher one counts again once the lower has not been named for long."""

    per_minute: float | None = None
    named_at: float = 0.0

    def ruling(self, own: float | None, now: float) -> float | None:
        """The rate that counts for a process that names `own`."""
        if own is None:
            return None
        if self.per_minute is None or own <= self.per_minute or not self.lasts(now):
            self.per_minute, self.named_at = own, now
        return self.per_minute

    def lasts(self, now: float) -> bool:
        return self.per_minute is not None and now - self.named_at < max(RULES_S, 600.0 / self.per_minute)


@dataclass(slots=True)
class Account:
    """What of one lane's allowance is taken: the instants from which on requests, and tokens, are free again."""

    requests_due: float = 0.0
    tokens_due: float = 0.0
    paused_until: float = 0.0
    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)

    def pause(self, seconds: float, now: float) -> None:
        self.paused_until = max(self.paused_until, now + seconds)

    def take(self, want: Want, now: float) -> Slice:
        """The next slice. Nothing that was free and not taken is made up for, but for the lateness of timers."""
        self.pause(want.pause_s, now)
        self.tokens_due += want.owed_s
        self.requests_due -= want.spare_s
        per_minute = self.requests.ruling(want.per_minute, now)
        tokens_per_minute = self.tokens.ruling(want.tokens_per_minute, now)
        if self.paused_until > now:
            return Slice(paused_s=self.paused_until - now)
        start, requests, tokens_s = now, None, 0.0
        if per_minute is not None:
            requests = max(1, min(want.requests, whole_slice(per_minute)))
            start = max(now - late_s(per_minute), self.requests_due)
        if tokens_per_minute is not None:
            start = max(start, self.tokens_due)
            tokens_s = want.tokens / tokens_per_minute * 60.0 * (1 + SLACK)
            self.tokens_due = start + tokens_s
        if per_minute is not None and requests is not None:
            self.requests_due = start + requests * kept_interval_s(per_minute)
        return Slice(
            starts_in_s=start - now,
            requests=requests,
            tokens_s=tokens_s,
            per_minute=per_minute,
            tokens_per_minute=tokens_per_minute,
        )

    def idle(self, now: float) -> bool:
        """Whether the account says nothing any more: forgetting it changes no slice."""
        free_at = max(self.requests_due, self.tokens_due, self.paused_until)
        return free_at < now and not self.requests.lasts(now) and not self.tokens.lasts(now)


def whole_slice(per_minute: float) -> int:
    """The requests of a whole slice."""
    return max(1, int(SLICE_S / kept_interval_s(per_minute)))


def late_s(per_minute: float) -> float:
    """How late a slice may be taken without a loss."""
    return (at_once(per_minute) - 1) * kept_interval_s(per_minute)


def read_account(found: Mapping[str, Any]) -> Account:
    """An account from its fields, as `dataclasses.asdict` gives them. Raises TypeError or KeyError for others."""
    return Account(**{**found, "requests": Rate(**found["requests"]), "tokens": Rate(**found["tokens"])})
