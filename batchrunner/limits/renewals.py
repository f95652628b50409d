"""How often a key is fetched anew because it was refused."""

from __future__ import annotations

from aiolimiter import AsyncLimiter

AT_ONCE, PERIOD_S = 5, 60.0


def renewals() -> AsyncLimiter:
    """Lets five go at once, then one every 12 s: an item that is refused with every key must not ask without end."""
    return AsyncLimiter(AT_ONCE, PERIOD_S)
