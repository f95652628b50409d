"""What a simulator is told to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATES = ("error_rate", "cut_rate", "stall_rate", "garbage_rate")
MOST_SIGMA = 2.0
"""Beyond it a few answers are longer than all others together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the simulator behaves. Raises JobError with every fault at once."""

    port: int = 0
    """0 takes any free port."""
    host: str = "127.0.0.1"
    latency_s: float = 0.0
    """Median time to answer, log-normal; 0 answers at once."""
    requests_per_minute: float | None = None
    """Allowance of each key; requests without a key share one."""
    tokens_per_minute: float | None = None
    error_rate: float = 0.0
    """Share of requests answered with 500 or 503."""
    cut_rate: float = 0.0
    """Share of replies whose connection closes in the middle of the body."""
    stall_rate: float = 0.0
    """Share of replies that send headers and then nothing for `stall_s`."""
    garbage_rate: float = 0.0
    """Share of replies with status 200 that hold no completion."""
    invalid_rate: float = 0.0
    """Share of answers to a request with a JSON Schema that are not valid by it."""
    length_sigma: float = 0.0
    """Spread of the log-normal length of texts; at 0 they are about equally long."""
    seed: int = 0
    log: Path | None = None
    """JSON lines are appended here, one per request, without secrets."""
    require_key: bool = False
    """Refuse requests without a key. A key that contains "invalid" is always refused."""
    stall_s: float = 60.0

    def __post_init__(self) -> None:
        if faults := [*self._faults()]:
            raise JobError(*faults)

    def _faults(self) -> Iterator[str]:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"simulator: {name}: expected a number above 0, got {value!r}"
        if not 0 <= self.length_sigma <= MOST_SIGMA:
            yield f"simulator: length_sigma: expected a number from 0 to {MOST_SIGMA}, got {self.length_sigma!r}"
        for name in ("latency_s", "stall_s"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                yield f"simulator: {name}: expected 0 or more seconds, got {value!r}"
        for name in RATES:
            if not 0 <= (value := getattr(self, name)) <= 1:
                yield f"simulator: {name}: expected a share from 0 to 1, got {value!r}"
        if not 0 <= self.invalid_rate <= 1:
            yield f"simulator: invalid_rate: expected a share from 0 to 1, got {self.invalid_rate!r}"
        if (total := sum(getattr(self, name) for name in RATES)) > 1 + 1e-9:
            yield f"simulator: {', '.join(RATES)}: expected at most 1 together, got {total:g}"
