"""The rate of a server that does not say it: learned from when it refuses."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Literal

STEP_S = 0.02
LEAST_S = 0.1
"""A rate shows over no less time than this."""
MOST_STEPS = 3_000
"""A minute of steps is remembered."""
BURST_S = 0.42
"""The first guess: what a server let through at once is this many seconds' worth of its rate.

Near the low end of what is usual (0.4 to 2 s). A guess that is too high shows within seconds and costs little,
for a large burst comes back during the pause; one that is too low costs all along."""
WINDOW_S = 5.0
"""A server that asks for a longer pause than this counts by a window, and the pause is what is left of it."""
SHUT = 3
"""So does one that refuses all for longer than that, at least so many tries in a row."""
GUESSED, UNDER = 0.98, 0.99
"""Shares of a guessed and of a measured rate that are used."""
LOWER = 0.97
"""A rate that was refused is never tried on, however the sums come out: at most this share of it."""
FEW, MANY = 6, 15
"""Signals after fewer accepted requests than this say little; a first guess after this many is good."""
IN_VAIN = 5
"""So many signals after few requests, at ever lower rates: the rate is not what is refused."""
FASTER, FASTEST = 1.25, 2_000.0
"""Where sending less is in vain the pauses alone bound the lane: what goes between them goes quickly."""
SEEN, CHANCE = 4, 0.45
"""Where less than this share of so many is refused behind a first refusal, it is no rate that is refused."""
MOST_OUT, REMEMBERED = 1_000, 200
MOST_UNSEEN = 3
"""So many signals are let pass without knowing that."""
SAME = 0.05
"""A rate that is measured again within this share is kept for twice as long before it is tried higher."""

State = Literal["weak", "guessed", "measured", "vain"]
GROWTH: dict[State, tuple[float, float, float]] = {
    "weak": (0.0, 0.30, 1.0),
    "guessed": (60.0, 0.03, 4.0),
    "measured": (60.0, 0.0005, 30.0),
    "vain": (0.0, 0.5, 1.0),
}
"""How long a rate is kept before it is tried higher; its growth per second then; what that doubles in."""
WORTH = 14
"""A guess is tried higher once so many times the pause has passed which that may cost."""
SURE = 50
"""A rate measured by fewer requests than this is kept for a shorter time, and grows faster."""
SHORT_S = 3.0
SLOWEST = 1.0 / 120
SOON = 0.1
MOST_GROWTH, MOST_WEAK = 0.15, 0.3
"""At each look."""
LONGEST_HOLD_S = 600.0
BINDS = 0.9
"""Only a rate that is used up to this share is tried higher."""
SEEN_S: dict[State, float] = {"weak": 0.25, "guessed": 3.0, "measured": 3.0, "vain": 0.5}
"""Over how long that is looked at: longer than a round trip, since replies may come in bunches."""


class LearnedRate:
    """How many requests a second a lane may send; `per_s` is None for as many as it likes.

    A server that refills a bucket of B requests at R a second refuses after B + R * t of them. One such
    signal gives a guess, two of different length give both figures; a server that counts by a window
    shows in the pause it asks for. `took` counts what is sent, `refused` takes the refusals: all those of
    one burst are one signal, judged when sending goes on.
    """

    def __init__(self) -> None:
        self.per_s: float | None = None
        self.state: State = "weak"
        self.signals = 0
        self.known_per_s: float | None = None
        """The rate that the lane keeps to anyway."""
        self._base = inf
        """The rate as last judged or grown, without the halvings while everything is refused."""
        self._accepted: dict[int, int] = {}
        """Requests sent and not refused, by the number of their step."""
        self._step, self._step_ends, self._count = 0, 0.0, 0
        self._began_at = self._pause_s = self._longest_pause_s = 0.0
        self._refused_at = self._empty_at = -1.0
        """The last refusal since sending began again; the last one before."""
        self._burst: tuple[float, float] | None = None
        """How many were accepted up to the first signal since the bucket was full, and in what time."""
        self._window_s: float | None = None
        """Over how long a server counts that shows itself to count by a window."""
        self._judged_at = self._grew_at = 0.0
        self._sent = self._refusals = self._blocked = self._vain = 0
        self._came, self._came_since = 0.0, 0.0
        """How many were accepted in the last stretch in which any were, and when that began."""
        self._first_at = 0.0
        self._let_in = self._shut_out = self._out = 0
        """Of those begun behind the first refused one: how many came through, did not, are still out."""
        self._unseen = 0
        self._sent_at: deque[float] = deque(maxlen=MOST_OUT)
        """When the last ones were sent, while no rate is known."""
        self._hold_s, self._growth = GROWTH["measured"][:2]

    @property
    def burst(self) -> float:
        """How many the server is known to take at once."""
        return self._burst[0] if self._burst else 1.0

    @property
    def curious(self) -> bool:
        """Whether every success is to be told, until it is known what refusals mean."""
        return self.per_s is None and self._first_at > 0

    @property
    def by_chance(self) -> bool:
        """Whether most that were begun behind a refused one came through: no limit does that."""
        seen = self._let_in + self._shut_out
        return self.per_s is None and seen >= SEEN and self._shut_out < CHANCE * seen

    def took(self, now: float) -> bool:
        """A request goes out. True where the rate may have changed."""
        if self.curious:
            self._out += 1
        elif self.per_s is None:
            self._sent_at.append(now)
        if now < self._step_ends:
            self._count += 1
            return False
        return self._turn(now)

    def refused(self, *, started_at: float, pause_s: float) -> None:
        """A request begun at `started_at` met a rate limit; the lane pauses for so long."""
        if started_at < self._began_at:
            return  # Of a burst that was judged.
        self._keep()
        number = int(started_at / STEP_S)
        if not self._first_at:
            self._first_at = started_at
            self._out = sum(at > started_at for at in self._sent_at)
            self._sent_at.clear()
        elif started_at > self._first_at:
            self._see(shut_out=1)
        self._accepted[number] = self._accepted.get(number, 0) - 1
        self._pause_s = pause_s if self._refused_at < 0 else max(self._pause_s, pause_s)
        self._refused_at = max(self._refused_at, started_at)
        self._refusals += 1
        self._step_ends = 0.0

    def accepted(self, *, started_at: float) -> bool:
        """A request begun at `started_at` came through. True where the rate may have changed."""
        if self.curious and started_at > self._first_at:
            self._see(let_in=1)
        if not self._blocked or started_at < self._began_at or self._refused_at >= 0:
            return False
        shut_s = self._began_at - self._came_since
        if shut_s > WINDOW_S and self._blocked >= SHUT and self._came >= FEW:
            self._window_s, self.state = shut_s, "measured"
            self._base = min(self._base, self._came / shut_s * UNDER)
            self._hold_s, self._growth = GROWTH["measured"][:2]
        self._blocked, self.per_s = 0, self._base
        return True

    def _see(self, *, let_in: int = 0, shut_out: int = 0) -> None:
        self._let_in += let_in
        self._shut_out += shut_out
        self._out -= 1
        if self._let_in + self._shut_out > REMEMBERED:
            self._let_in, self._shut_out = self._let_in // 2, self._shut_out // 2

    def _keep(self) -> None:
        if self._count:
            self._accepted[self._step] = self._accepted.get(self._step, 0) + self._count
            self._sent += self._count
            self._count = 0

    def _turn(self, now: float) -> bool:
        """The first request of a step, or after a signal."""
        self._keep()
        before = self.per_s
        if self._refused_at >= 0:
            self._judge(now)
            self._began_at = self._judged_at = self._grew_at = now
            self._refused_at, self._sent, self._refusals = -1.0, 0, 0
        elif self.per_s is not None:
            self._grow(now)
        elif not self._accepted:
            self._began_at = now
        self._step = int(now / STEP_S)
        self._step_ends, self._count = (self._step + 1) * STEP_S, 1
        while len(self._accepted) > MOST_STEPS:
            del self._accepted[next(iter(self._accepted))]
        return self.per_s != before

    # At a signal

    def _judge(self, now: float) -> None:
        if self.by_chance:
            return
        if self.per_s is None and self._let_in + self._shut_out < SEEN <= self._out and self._unseen < MOST_UNSEEN:
            self._unseen += 1
            return  # The pause was over before it could show.
        self.signals += 1
        first, last = int(self._began_at / STEP_S), int(self._refused_at / STEP_S)
        counts = [(step, count) for step, count in self._accepted.items() if first <= step <= last and count > 0]
        accepted = sum(count for _, count in counts)
        if accepted >= 1:
            self._came, self._came_since, self._blocked = accepted, self._began_at, 0
        if self._burst is None:
            if accepted < 1:
                return  # Nothing was let in yet: that says nothing of a rate.
            self._guess(counts, accepted)
        elif accepted < 1:
            self._still_refused(now)
        else:
            self._measure(counts, accepted)
        self._empty_at = self._refused_at
        # A server that never asks for more than a moment has room soon.
        self._longest_pause_s = max(self._longest_pause_s, self._pause_s)
        self._base = max(self._base, SOON / max(self._longest_pause_s, 0.001))
        slowest = 1.0 / max(self._pause_s, 1.0, (now - self._came_since) / 8)
        self.per_s = max(self._base * 0.5**self._blocked, min(self._base, slowest))

    def _guess(self, counts: list[tuple[int, int]], accepted: int) -> None:
        if self._pause_s > WINDOW_S:
            self._burst = accepted, 0.0
            self._base, self.state = self._by_window(accepted), "measured"
            return
        per_s, *burst = self._steepest(counts, -0.5, BURST_S)
        self._burst = burst[0], burst[1]
        self._base = max(per_s * GUESSED, 1.0 / max(1.0, self._pause_s))
        if self.known_per_s:
            # Somebody else has sent too, or something has stalled on the way: one signal disproves no limit.
            self._base = max(self._base, self.known_per_s * LOWER)
        self.state = "weak" if accepted < MANY else "guessed"

    def _by_window(self, accepted: int) -> float:
        """From what came in all of the window, with what is left of it."""
        since_s = self._refused_at - self._began_at
        if self._pause_s > WINDOW_S:
            self._window_s = since_s + self._pause_s
            return max(accepted, 1) / self._window_s * UNDER
        assert self._window_s is not None
        first = int((self._refused_at - self._window_s) / STEP_S)
        recent = sum(count for step, count in self._accepted.items() if step > first)
        return max(recent, 1) / self._window_s * UNDER

    def _still_refused(self, now: float) -> None:
        """Nothing of this try came through: what did before has to last for all the time since."""
        if self.state == "vain":
            return
        self._blocked += 1
        if self._blocked > 1 and self._came >= FEW:
            self._base = min(self._base, self._came / (now - self._came_since))

    def _measure(self, counts: list[tuple[int, int]], accepted: int) -> None:
        before, length_s = self._base, self._refused_at - self._began_at
        few = accepted < FEW and self._window_s is None
        self._vain = self._vain + 1 if few else max(0, self._vain - 2)
        few = few and length_s < SHORT_S
        if self.state == "vain" and 2 * accepted < self._refusals >= FEW:
            self.state, self._vain = "weak", 0
        if self.state == "vain" or self._vain >= IN_VAIN:
            self.state, self._base = "vain", min(FASTEST, max(before, FEW / BURST_S) * FASTER)
            return
        if self._pause_s > WINDOW_S or self._window_s is not None:
            per_s = self._by_window(accepted)
        else:
            per_s = self._by_bucket(counts, accepted, few=few) * UNDER
        self._base = max(min(per_s, before * LOWER), SLOWEST)
        self.state = "weak" if few else "measured"
        hold_s, growth, _ = GROWTH["measured"]
        again = per_s > before * (1 - SAME)
        self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S) if again else hold_s * min(1.0, accepted / SURE)
        self._growth = max(growth, 0.1 / accepted)

    def _by_bucket(self, counts: list[tuple[int, int]], accepted: int, *, few: bool) -> float:
        assert self._burst is not None
        burst, burst_s = self._burst
        per_s = 0.0
        for _ in range(8):
            # The refused one counts for half: it came too early by that much, on average.
            per_s = max(0.0, self._steepest(counts, burst - per_s * burst_s - 0.5, 0.0)[0])
        # What came since the last refusal came out of a bucket that was empty then.
        least = (accepted - few) / (self._refused_at - self._empty_at)
        return max(self._base / 2 if few else per_s, least)

    def _steepest(self, counts: list[tuple[int, int]], burst: float, burst_s: float) -> tuple[float, float, float]:
        """The rate that explains the signal, by what came since some instant at which the bucket was full.

        And how many those were, in how many seconds.
        """
        best, total = (0.0, 1.0, 0.0), 0.0
        for step, count in reversed(counts):
            total += count
            length_s = max(self._refused_at - (step + 0.5) * STEP_S, 0.0)
            per_s = (total - burst) / max(length_s + burst_s, LEAST_S)
            if per_s > best[0]:
                best = per_s, total, length_s
        return best

    # While no signal comes

    def _grow(self, now: float) -> None:
        assert self.per_s is not None
        passed_s = now - self._grew_at
        if self._blocked or passed_s < max(SEEN_S[self.state], (2.0 if self.state == "weak" else 4.0) / self.per_s):
            return
        used = self._sent / (self.per_s * passed_s)
        self._grew_at, self._sent = now, 0
        hold_s, growth, doubles_s = GROWTH[self.state]
        if self.state == "measured":
            hold_s, growth = self._hold_s, self._growth
        elif self.state == "guessed":
            hold_s = min(hold_s, WORTH * self._longest_pause_s)
        kept_s = now - self._judged_at - hold_s
        if kept_s > 0 and used >= BINDS:
            growth *= 2.0 ** min(kept_s / doubles_s, 30.0)
            self._base *= 1.0 + min(MOST_WEAK if self.state == "weak" else MOST_GROWTH, passed_s * growth)
            self.per_s = self._base
