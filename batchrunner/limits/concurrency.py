"""How many requests a lane has in flight: a fixed number, or one that feels its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

START = 8
MOST = 999
CUT = 0.7
EASED = 0.9
INFLATION = 2.0
"""The number shrinks while replies take this many times as long as they did at their quickest."""
SPARE, RECORD_S = 1.25, 0.1
"""A pace has at least so many times the slots that it needs, which are taken until an answer is recorded."""
HELPED = 0.97
"""Having fewer out has helped where replies then take at most this share of the time."""
SETTLED = 4
"""The average of the replies' times has settled after so many replies for each slot."""


def _nothing(*_: object) -> None:
    pass


class Concurrency:
    """The number of slots of one lane.

    A fixed number stays, but for a lack of open files: that cuts it, and it grows back by one a round
    trip. `auto` starts at 8, doubles a round trip while concurrency is what binds, after the first
    rate-limit signal grows by one a round trip unless the lane has a pace to keep it from the next one, and
    is cut by three tenths on each further signal; a burst of signals from requests that were already out
    counts once. Replies that take ever longer cut it by a tenth, as long as that helps.
    """

    def __init__(self, setting: int | str, *, most: int = MOST) -> None:
        self.fixed = setting != "auto"
        self.wanted = min(int(setting), most) if self.fixed else most
        """The most that is asked for; `cap` may have set less."""
        self.changed: Callable[[], None] = _nothing
        self.eased: Callable[[float, float], None] = _nothing
        """Told how long replies take, and took at their quickest, when that has cut the number."""
        self._most = self.wanted
        self._size = float(self.wanted if self.fixed else min(START, most))
        self.limit = max(1, int(self._size))
        """How many may be in flight."""
        self._threshold = float(most)
        self._cut_at = 0.0
        self._latency_s = self._quickest_s = 0.0
        self._eased_from_s = 0.0
        self._settling = 0

    @property
    def soon(self) -> int:
        """How many slots there may be before long."""
        return self.limit if self.fixed else min(2 * self.limit, self._most)

    def cap(self, most: int) -> None:
        """Stay within `most`, whatever was asked for."""
        self._most = max(1, min(self.wanted, most))
        self._resize(min(self._size, self._most))

    def _resize(self, size: float) -> None:
        self._size = size
        limit = max(1, int(size))
        if limit != self.limit:
            self.limit = limit
            self.changed()

    def succeeded(self, *, in_flight: int, latency_s: float, per_s: float | None = None) -> None:
        """A reply came with `in_flight` requests out, itself included; `per_s` is the lane's pace, if it has one."""
        if self.fixed:
            if self._size < self._most and in_flight >= self.limit:
                self._resize(min(self._most, self._size + 1.0 / self._size))
            return
        if self._inflated(latency_s) or self._size >= self._most:
            return
        # A pace needs so many that it can be kept, and protects from what more might bring about.
        needed = 0.0 if per_s is None else SPARE * per_s * (self._latency_s + RECORD_S)
        if in_flight < self.limit and self._size >= needed:
            return
        step = 1.0 if per_s is not None or self._size < self._threshold else 1.0 / self._size
        self._resize(min(self._most, max(self._size + step, needed)))

    def _inflated(self, latency_s: float) -> bool:
        """Whether replies take so long that more in flight would only wait; less is tried then."""
        if self._latency_s == 0.0:
            self._latency_s = self._quickest_s = latency_s
            return False
        weight = 1.0 / max(8.0, self._size)
        smooth_s = self._latency_s = self._latency_s + weight * (latency_s - self._latency_s)
        # The quickest drifts up slowly, so that one lucky reply does not rule for ever.
        self._quickest_s = min(smooth_s, self._quickest_s * (1 + weight / 2_000))
        if smooth_s <= INFLATION * max(self._quickest_s, 0.001):
            self._eased_from_s, self._settling = 0.0, 0
            return False
        if not self._settling:
            # The average lags behind: it is looked at again when it has caught up.
            self._settling = SETTLED * self.limit
        else:
            self._settling -= 1
            if not self._settling:
                self._ease(smooth_s)
        return True

    def _ease(self, smooth_s: float) -> None:
        if self._eased_from_s and smooth_s > HELPED * self._eased_from_s:
            # Fewer have not helped: the requests are of another kind, and this is how long they take.
            self._quickest_s, self._eased_from_s = smooth_s, 0.0
            return
        self._eased_from_s = smooth_s
        self._resize(max(min(float(START), self._size), self._size * EASED))
        self._settling = SETTLED * self.limit
        self.eased(smooth_s, self._quickest_s)

    def throttled(self, *, started_at: float, now: float, vain: bool = False) -> bool:
        """A rate-limit signal for a request begun at `started_at`. True when it cut the number.

        `vain`: sending less has not helped, so that no fewer than at the start are kept.
        """
        if self.fixed or (vain and self._size * CUT < START):
            return False
        return self.crowded(started_at=started_at, now=now)

    def crowded(self, *, started_at: float, now: float) -> bool:
        """There was no file left for a request begun at `started_at`. True when it cut the number."""
        if started_at < self._cut_at:
            return False
        self._resize(max(1.0, self._size * CUT))
        self._threshold = self._size
        self._cut_at = now
        return True
