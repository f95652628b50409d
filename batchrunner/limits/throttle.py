"""What a lane may send: the limits it was given, those that replies announce, and the rate that refusals teach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from batchrunner.limits.learned import LearnedRate
from batchrunner.limits.pace import RequestPace, TokenPace

if TYPE_CHECKING:
    from collections.abc import Callable

RAISED_S = 30.0
"""A server that announces ever other limits is believed at once when it lowers one, else this often."""
TOLD = 1.1
"""A rate that grows is reported each time it has grown by a tenth."""


class Announced:
    """One limit of the headers: a lower one counts at once, a higher one once the last has stood for a while."""

    __slots__ = ("_since", "limit")

    def __init__(self) -> None:
        self.limit: float | None = None
        self._since = 0.0

    def hear(self, limit: float | None, now: float) -> bool:
        """Whether this is news."""
        if limit is None or limit == self.limit or limit <= 0:
            return False
        if self.limit is not None and limit > self.limit and now - self._since < RAISED_S:
            return False
        self.limit, self._since = limit, now
        return True


class Throttle:
    """The pace of a lane. `requests` and `tokens` are None while there is nothing to keep to.

    What is announced or learned only ever lowers what the user has set, or fills in where nothing was.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        *,
        share: float,
        now: float,
        tell: Callable[..., None],
    ) -> None:
        self._set_requests, self._set_tokens, self._share, self._tell = (
            requests_per_minute,
            tokens_per_minute,
            share,
            tell,
        )
        self._requests_told, self._tokens_told = Announced(), Announced()
        self._learned = LearnedRate()
        self._learned.known_per_s = requests_per_minute / 60 if requests_per_minute else None
        self._told_per_minute = 0.0
        self._signals_told = 0
        self.requests = RequestPace(requests_per_minute) if requests_per_minute else None
        self.tokens = TokenPace(tokens_per_minute, now=now) if tokens_per_minute else None

    @property
    def requests_per_minute(self) -> float | None:
        """The lowest of the rates that hold now."""
        return self.requests.per_minute if self.requests else None

    @property
    def in_vain(self) -> bool:
        """Whether sending less has not kept the server from refusing."""
        return self._learned.state == "vain" or self._learned.by_chance

    @property
    def source(self) -> Literal["set", "announced", "learned"] | None:
        """Where the present rate comes from."""
        if self.requests is None:
            return None
        learned, told = self._learned.per_s, self._requests_told.limit
        if learned is not None and learned * 60 <= self.requests.per_minute * 1.0001:
            return "learned"
        if told is not None and told * self._share <= self.requests.per_minute * 1.0001:
            return "set" if self._set_requests == self.requests.per_minute else "announced"
        return "set"

    @property
    def curious(self) -> bool:
        return self._learned.curious

    def wait_s(self, now: float) -> float:
        """Seconds until one more request may start."""
        wait_s = 0.0 if self.requests is None else self.requests.wait_s(now)
        return wait_s if self.tokens is None else max(wait_s, self.tokens.wait_s(now))

    def take(self, tokens: int, now: float) -> None:
        if self.requests is not None:
            self.requests.take(now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)

    async def claim(self, tokens: int) -> float:
        """Ask for what has to be shared, for a request of so many `tokens`; how long nobody is given any."""
        return 0.0

    def share_pause(self, seconds: float) -> None:
        """Tell those who share the lane that it is paused."""

    def settle(self, reserved: int, used: int) -> None:
        """Put the real figure in the place of the estimate that was taken."""
        if self.tokens is not None:
            self.tokens.settle(reserved, used)

    def rest_until(self, instant: float) -> None:
        if self.requests is not None:
            self.requests.rest_until(instant)

    def took(self, now: float) -> None:
        """A request goes out."""
        if self._learned.took(now):
            self._repace(now)
            self._report()

    def refused(self, *, started_at: float, pause_s: float) -> None:
        self._learned.refused(started_at=started_at, pause_s=pause_s)

    def came_through(self, *, started_at: float, now: float) -> None:
        """After a refusal: a request begun then was let in."""
        if self._learned.accepted(started_at=started_at):
            self._repace(now)
            self._report()

    def announced(self, requests: float | None, tokens: float | None, now: float) -> None:
        """Limits a minute, by a reply's headers."""
        news = self._requests_told.hear(requests, now)
        if self._tokens_told.hear(tokens, now):
            news = True
            self._retoken(now)
        if news:
            self._repace(now)
            self._tell(
                "limit_announced",
                requests_per_minute=self._requests_told.limit,
                tokens_per_minute=self._tokens_told.limit,
            )

    def _repace(self, now: float) -> None:
        told, learned = self._requests_told.limit, self._learned.per_s
        limits = [limit for limit in (self._set_requests, told * self._share if told else None) if limit]
        known = min(limits, default=None)
        self._learned.known_per_s = None if known is None else known / 60
        lower = learned is not None and not (known is not None and known <= learned * 60)
        self._keep_to(known, learned * 60 if lower and learned is not None else None, now)

    def _keep_to(self, known: float | None, learned: float | None, now: float) -> None:
        """A rate that is set or announced, or the one learned where that is lower."""
        rate = known if learned is None else learned
        if rate is None:
            self.requests = None
            return
        if self.requests is None:
            self.requests = RequestPace(rate)
            self.requests.rest_until(now)
            self.requests.take(now)
        # A server that takes no burst takes no two at once either.
        self.requests.set(rate, most=None if learned is None else 1 + int(self._learned.burst / 5))

    def _retoken(self, now: float) -> None:
        told = self._tokens_told.limit
        assert told is not None
        limit = told * self._share if self._set_tokens is None else min(self._set_tokens, told * self._share)
        if self.tokens is None:
            self.tokens = TokenPace(limit, now=now)
        else:
            self.tokens.set(limit)

    def _report(self) -> None:
        """A learned rate, when a signal has changed it and each time it has grown by a tenth."""
        learned = self._learned
        per_minute = 60.0 * (learned.per_s or 0.0)
        cut = learned.signals > self._signals_told
        if cut or per_minute > TOLD * self._told_per_minute:
            self._tell(
                "rate_learned" if cut else "rate_raised", requests_per_minute=round(per_minute, 1), by=learned.state
            )
            self._told_per_minute, self._signals_told = per_minute, learned.signals
