"""The caps on money and tokens, kept by reservation: booked before sending, settled after."""

from __future__ import annotations

from batchrunner.records import fact


@fact(frozen=True, slots=True, kw_only=True)
class Reservation:
    cost_usd: float = 0.0
    tokens: int = 0


NOTHING = Reservation()


class Budget:
    """What may still be spent over the whole life of a run.

    `spent_usd` and `spent_tokens` are what earlier invocations spent.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_tokens: int | None = None,
        spent_usd: float = 0.0,
        spent_tokens: int = 0,
    ) -> None:
        self.max_cost_usd, self.max_tokens = max_cost_usd, max_tokens
        self.spent_usd, self.spent_tokens = spent_usd, spent_tokens
        self._reserved_usd, self._reserved_tokens, self._out = 0.0, 0, 0

    @property
    def capped(self) -> bool:
        return self.max_cost_usd is not None or self.max_tokens is not None

    @property
    def idle(self) -> bool:
        """Nothing is reserved: what is spent now is what will have been spent."""
        return self._out == 0

    def fits(self, wanted: Reservation) -> bool:
        usd = self.spent_usd + self._reserved_usd + wanted.cost_usd
        tokens = self.spent_tokens + self._reserved_tokens + wanted.tokens
        return (self.max_cost_usd is None or usd <= self.max_cost_usd) and (
            self.max_tokens is None or tokens <= self.max_tokens
        )

    def reserve(self, wanted: Reservation) -> None:
        self._reserved_usd += wanted.cost_usd
        self._reserved_tokens += wanted.tokens
        self._out += 1

    def settle(self, reserved: Reservation, *, cost_usd: float, tokens: int) -> None:
        """Put what an attempt really cost in the place of what was reserved for it."""
        self._out -= 1
        self._reserved_usd = self._reserved_usd - reserved.cost_usd if self._out else 0.0
        self._reserved_tokens -= reserved.tokens
        self.spent_usd += cost_usd
        self.spent_tokens += tokens

    def describe(self) -> str:
        caps = []
        if self.max_cost_usd is not None:
            caps.append(f"${self.spent_usd:,.4f} of ${self.max_cost_usd:,.4f}")
        if self.max_tokens is not None:
            caps.append(f"{self.spent_tokens:,} of {self.max_tokens:,} tokens")
        return " and ".join(caps)
