"""How many of a lane's requests may be retries, so that a server in trouble is not asked ever more often."""

from __future__ import annotations

from collections import deque

WINDOW_S = 120.0
FLOOR, SHARE = 50, 0.5
STEPS = 120
"""A window is counted in this many steps, and one more: a retry is never forgotten too early."""


class RetryBudget:
    """Lets at most 50 requests of the last 120 s be retries, or half of them, whichever is more.

    A retry is an attempt after one that failed and that counts as an attempt of its item. What is bounded
    by other means is none: an attempt after a rate limit (the lane's pause), after trouble while the lane was
    down (its probes), after a lack of open files (fewer slots); nor is the next turn of a conversation.
    """

    def __init__(self, *, window_s: float = WINDOW_S, floor: int = FLOOR) -> None:
        self.requests = self.retries = 0
        self._step_s, self._floor = window_s / STEPS, floor
        self._steps: deque[list[int]] = deque()
        """Number of the step, its requests, its retries; the oldest first."""
        self._step, self._step_ends = [0, 0, 0], 0.0

    def took(self, now: float, *, retry: bool) -> None:
        """Count a request that is about to be sent."""
        if now >= self._step_ends:
            self._begin_step(now)
        self.requests += 1
        self._step[1] += 1
        if retry:
            self.retries += 1
            self._step[2] += 1

    def _begin_step(self, now: float) -> None:
        number = int(now / self._step_s)
        self._step, self._step_ends = [number, 0, 0], (number + 1) * self._step_s
        self._steps.append(self._step)
        self._forget(now)

    def spare(self, now: float) -> bool:
        """Whether one more retry may go now."""
        self._forget(now)
        return self._allows(self.requests, self.retries)

    def wait_s(self, now: float) -> float:
        """Seconds until a retry may go, though nothing else goes before it; 0 when it may go now."""
        if self.spare(now):
            return 0.0
        requests, retries = self.requests, self.retries
        for number, old_requests, old_retries in self._steps:
            requests, retries = requests - old_requests, retries - old_retries
            if self._allows(requests, retries):
                # At least a moment, so that rounding makes nobody ask again and again.
                return max(0.001, (number + STEPS + 1) * self._step_s - now)
        raise AssertionError("an empty window allows a retry")

    def _allows(self, requests: int, retries: int) -> bool:
        return retries < max(self._floor, SHARE * requests)

    def _forget(self, now: float) -> None:
        oldest = int(now / self._step_s) - STEPS
        while self._steps and self._steps[0][0] < oldest:
            _, requests, retries = self._steps.popleft()
            self.requests -= requests
            self.retries -= retries
