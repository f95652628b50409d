"""How many of a lane's attempts meet trouble of the server's, rate limits left out."""

from __future__ import annotations

WEIGHT = 1 / 20
POOR = 0.5
FORGOTTEN = 0.002
LEAST_BACKOFF = 0.05


class Health:
    """The share of the last few dozen attempts that failed."""

    def __init__(self) -> None:
        self.failing = 0.0

    @property
    def poor(self) -> bool:
        """Whether the server is in trouble, rather than losing a request here and there."""
        return self.failing >= POOR

    @property
    def backoff(self) -> float:
        """The part of its usual backoff that an item waits: little while most attempts come through."""
        return min(1.0, max(LEAST_BACKOFF, (self.failing / POOR) ** 2))

    def failed(self) -> None:
        self.failing += WEIGHT * (1.0 - self.failing)

    def succeeded(self) -> bool:
        """Whether there is anything left to forget."""
        self.failing = failing = self.failing * (1.0 - WEIGHT)
        if failing < FORGOTTEN:
            self.failing = 0.0
        return self.failing > 0.0
