"""Whether another attempt is worth it, and how long it waits: tenacity's machinery with our own stop and wait."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tenacity import DoSleep, RetryCallState, Retrying, retry_if_exception
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from batchrunner.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_WAIT_S, LEAST_WAIT_S = 1.0, 0.1
LONGEST_BACKOFF_S = 60.0
MOST_UNREADABLE = 2
"""How often a 200 that was cut or could not be read is tried again: each one may have been billed."""


def unreadable(error: RequestError) -> bool:
    """Whether a 200 was cut, also by a reset, or could not be read."""
    lost_in_the_body = error.error_type == "connection" and error.status is not None
    return lost_in_the_body or error.error_type in ("malformed", "truncated")


class Backoff:
    """Decides after a failed attempt. Not paid for on the success path."""

    def __init__(self, *, attempts: int, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._retrying = Retrying(
            retry=retry_if_exception(_worth_another), stop=_Enough(attempts), wait=_HintOrJitter(uniform), reraise=True
        )

    def wait_s(self, error: RequestError, *, failures: int, unreadable: int = 0, patience: float = 1.0) -> float | None:
        """Seconds until the next attempt, or None when there is none.

        `failures` counts the failed attempts so far, this one included, rate limits left out;
        `unreadable` those of them whose reply was cut or could not be read. `patience` is the part of the
        usual backoff that the state of the server calls for; its own hint is kept whole.
        """
        state = RetryCallState(self._retrying, None, (), {"unreadable": unreadable, "patience": patience})
        state.attempt_number = failures
        state.set_exception((type(error), error, error.__traceback__))
        self._retrying.begin()
        try:
            step = self._retrying.iter(state)
        except RequestError:
            return None
        assert isinstance(step, DoSleep)
        return float(step)


def _worth_another(error: BaseException) -> bool:
    # By name of the one type: tenacity shows a predicate every BaseException, cancellation too.
    return isinstance(error, RequestError) and error.verdict == "retry"


def _error(state: RetryCallState) -> RequestError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RequestError)
    return error


class _Enough(stop_base):
    def __init__(self, attempts: int) -> None:
        self.attempts = attempts

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        if error.error_type == "rate_limit" or error.scope == "machine":
            return False
        if error.error_type == "auth":
            # The key was changed for it, which is no fault of the item's: it deserves one more.
            return state.attempt_number > self.attempts
        too_often = unreadable(error) and state.kwargs["unreadable"] > MOST_UNREADABLE
        return too_often or state.attempt_number >= self.attempts


class _HintOrJitter(wait_base):
    """The server's hint and a little more, never less; else exponential with full jitter."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self.uniform = uniform

    def __call__(self, state: RetryCallState) -> float:
        hint = _error(state).wait_s
        if hint is not None:
            return hint + self.uniform(0.0, min(1.0, hint / 10))
        ceiling = FIRST_WAIT_S * 2.0 ** min(max(state.attempt_number, 1) - 1, 16)
        patience = float(state.kwargs["patience"])
        return self.uniform(LEAST_WAIT_S * patience, min(LONGEST_BACKOFF_S, ceiling) * patience)
