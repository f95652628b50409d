"""Chance that repeats: every draw is a hash of the seed, the body and, for faults, the attempt."""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchrunner.simulator.settings import Settings

Fault = Literal["error", "cut", "stall", "garbage"]

SIGMA = 0.4
"""Spread of the log-normal latency: the slowest of a hundred takes about two and a half times the median."""
_NORMAL = NormalDist()


def lot(seed: int, body: bytes) -> bytes:
    """The 32 bytes that decide all about the answer to `body`."""
    return blake2b(body, digest_size=32, key=str(seed).encode()[:64]).digest()


def another(lot: bytes, number: int) -> bytes:
    """A lot of its own for each `number`."""
    return blake2b(lot, digest_size=32, salt=number.to_bytes(8, "big")).digest()


def share(lot: bytes, at: int = 0) -> float:
    """A number above 0 and below 1, from the eight bytes at `at`."""
    return ((int.from_bytes(lot[at : at + 8], "big") >> 12) + 0.5) / 2**52


def latency_s(lot: bytes, median_s: float) -> float:
    if not median_s:
        return 0.0
    return median_s * log_normal(share(lot, 16), SIGMA)


def log_normal(drawn: float, sigma: float) -> float:
    """The factor to a median that a number between 0 and 1 stands for."""
    return math.exp(sigma * _NORMAL.inv_cdf(drawn))


class Dice:
    """Decides which attempts fail. Remembers only bodies whose last attempt did."""

    __slots__ = ("_failed", "_rates")

    def __init__(self, settings: Settings) -> None:
        rates: dict[Fault, float] = {
            "error": settings.error_rate,
            "cut": settings.cut_rate,
            "stall": settings.stall_rate,
            "garbage": settings.garbage_rate,
        }
        self._rates = {fault: rate for fault, rate in rates.items() if rate}
        self._failed: dict[bytes, int] = {}

    def fault(self, lot: bytes) -> Fault | None:
        """What goes wrong with this attempt, if anything."""
        if not self._rates:
            return None
        attempt = self._failed.get(lot, 0) + 1
        fault = self._fault(share(another(lot, attempt)))
        if fault:
            self._failed[lot] = attempt
        else:
            self._failed.pop(lot, None)
        return fault

    def _fault(self, drawn: float) -> Fault | None:
        for fault, rate in self._rates.items():
            if drawn < rate:
                return fault
            drawn -= rate
        return None
