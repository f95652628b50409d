"""The pace of a lane whose allowance is shared: it sends in the slices of time that it is given."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from batchrunner.limits.lease import SLICE_S, Slice, Want, whole_slice
from batchrunner.limits.pace import RequestPace, kept_interval_s
from batchrunner.limits.throttle import Throttle
from batchrunner.records import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.limits.lease import Lease


MOST = 10**12
"""More than any slice has."""


@fact(frozen=True, slots=True, kw_only=True)
class Stake:
    """One lane's part in a lease."""

    lease: Lease
    lane: str
    """Names the allowance for every process that shares it; no secret."""


class LeasedThrottle(Throttle):
    """What is set or announced is kept to by all processes together, what is learned by each on its own.

    A slice is taken when a request has to go and there is none in hand: who has nothing to send takes none. Also
    where there is no rate to share, for the slice tells of a pause.
    """

    def __init__(
        self, stake: Stake, clock: Callable[[], float], requests: float | None, *more: Any, **told: Any
    ) -> None:
        super().__init__(requests, *more, **told)
        self._stake, self._clock = stake, clock
        self._shared = requests
        self._own: RequestPace | None = None
        """A learned rate below the shared one: kept to on average, for in a slice all goes at the shared rate."""
        self._begins = self._ends = self._tokens_end = -inf
        self._got = Slice()
        self._left: float = 0
        self._likely = self._likely_tokens = MOST
        self._taken_tokens = 0
        self._owed_s = 0.0
        self._paused_until = 0.0
        self._lowered: float | None = None

    @property
    def requests_per_minute(self) -> float | None:
        rates = [pace.per_minute for pace in (self.requests, self._own) if pace is not None]
        return min(rates, default=None)

    def wait_s(self, now: float) -> float:
        """Seconds until one more request may start in the slice that is in hand; infinite where it is used up."""
        own = self.requests if self._shared is None else self._own
        own_s = 0.0 if own is None else own.wait_s(now)
        if own_s and now + own_s >= self._ends:
            return own_s  # A slice that is taken before would be over by then.
        starts = max(now + max(own_s, super().wait_s(now)), self._begins)
        booked = starts if self.requests is None else self.requests.booked_at(starts)
        spent = not self._left or (self.tokens is not None and self.tokens.is_owed(self._tokens_end))
        return starts - now if booked < self._ends and not spent else inf

    def take(self, tokens: int, now: float) -> None:
        super().take(tokens, now)
        self._left -= 1
        self._taken_tokens += tokens
        if self._own is not None:
            self._own.take(now)

    def settle(self, reserved: int, used: int) -> None:
        if self.tokens is not None:
            self._owed_s += self.tokens.in_s(used - reserved)

    async def claim(self, tokens: int) -> float:
        spare_s = self._look_back()
        owed_s, self._owed_s = self._owed_s, 0.0
        tokens_per_minute = None if self.tokens is None else self._tokens_shared()
        whole_tokens = 0 if tokens_per_minute is None else int(SLICE_S * tokens_per_minute / 60)
        want = Want(
            per_minute=self._shared,
            tokens_per_minute=tokens_per_minute,
            requests=self._likely,
            tokens=max(1, tokens, min(self._likely_tokens, whole_tokens)),
            spare_s=spare_s,
            owed_s=owed_s,
            pause_s=max(0.0, self._paused_until - self._clock()),
        )
        got = await self._stake.lease.take(self._stake.lane, want)
        if got.paused_s <= 0:
            self._begin(got, self._clock())
        return got.paused_s

    def _look_back(self) -> float:
        """See how much of the last slice was used: so much is likely to be in the next. Gives what can go back of it.

        Nothing goes back of a whole one: its time is over, and others have begun theirs.
        """
        got, spare_s = self._got, 0.0
        if got.requests is not None and got.per_minute is not None:
            whole = whole_slice(got.per_minute)
            self._likely = _likely(got.requests - self._left, self._left <= 0, whole)
            if self._left > 0 and got.requests < whole:
                spare_s = self._left * kept_interval_s(got.per_minute)
        if self.tokens is not None and self._tokens_end > -inf and got.tokens_per_minute is not None:
            whole_s, used_up_s = SLICE_S, self.tokens.owed_s(self._begins)
            self._likely_tokens = _likely(self._taken_tokens, used_up_s >= got.tokens_s, MOST)
            if used_up_s >= got.tokens_s or got.tokens_s < whole_s:
                self._owed_s += used_up_s - got.tokens_s
        self._got, self._left, self._taken_tokens, self._tokens_end = Slice(), 0, 0, -inf
        return spare_s

    def _begin(self, got: Slice, now: float) -> None:
        self._got, self._begins, length_s = got, now + got.starts_in_s, SLICE_S
        self._left = inf if got.requests is None else got.requests
        if self.requests is not None and got.per_minute is not None and got.requests is not None:
            if got.per_minute != self.requests.per_minute:
                self.requests.set(got.per_minute)
                self._tell_lowered(got.per_minute)
            self.requests.begin(self._begins)
            interval_s = self.requests.interval_s
            # The end is the instant of a request that is somebody else's, give or take.
            length_s = max(SLICE_S, got.requests * interval_s) - interval_s / 2
        self._ends = self._begins + length_s
        if self.tokens is not None and got.tokens_per_minute is not None:
            self.tokens.set(got.tokens_per_minute)
            self.tokens.begin(self._begins)
            self._tokens_end = self._begins + got.tokens_s

    def _tokens_shared(self) -> float | None:
        limits = [self._set_tokens, self._tokens_told.limit]
        return min((limit for limit in limits if limit is not None), default=None)

    def _tell_lowered(self, per_minute: float) -> None:
        if self._shared is not None and per_minute < self._shared and per_minute != self._lowered:
            self._lowered = per_minute
            self._tell("lease_lowered", requests_per_minute=per_minute, own=self._shared)

    def share_pause(self, seconds: float) -> None:
        until = self._clock() + seconds
        if until > self._paused_until + 0.05 * seconds:
            self._paused_until = until
            self._stake.lease.pause(self._stake.lane, seconds)

    def _keep_to(self, known: float | None, learned: float | None, now: float) -> None:
        if known is None:
            super()._keep_to(None, learned, now)
        elif known != self._shared:
            super()._keep_to(known, None, now)
        if known != self._shared:
            self._shared, self._ends = known, -inf
        self._own = self._averaged(learned, known) if learned is not None and known is not None else None

    def _averaged(self, learned: float, known: float) -> RequestPace:
        pace = self._own or RequestPace(learned)
        pace.set(learned)
        pace.early_s = max(pace.early_s, (whole_slice(known) - 1) * pace.interval_s)
        return pace

    def _retoken(self, now: float) -> None:
        super()._retoken(now)
        self._ends, self._tokens_end = -inf, -inf


def _likely(used: float, was_all: bool, most: int) -> int:
    """What is likely to be used of the next slice: a little more than of the last, much more where that was all."""
    return int(min(most, 4 * used if was_all else used + used // 16 + 1))
