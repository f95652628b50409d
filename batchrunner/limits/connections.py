"""What the limit of open files leaves, divided among the lanes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchrunner.limits.concurrency import Concurrency


class Connections:
    """At most `most` at once, an equal share for every lane. Lanes may be added at any time."""

    def __init__(self, most: int) -> None:
        self.most, self.capped = most, False
        self._sharers: list[Concurrency] = []

    def share(self, joining: Iterable[Concurrency]) -> int | None:
        """Cap every lane where all together want more than there are. Gives the cap the first time there is one."""
        self._sharers += joining
        if sum(concurrency.wanted for concurrency in self._sharers) <= self.most:
            return None
        each = max(1, self.most // len(self._sharers))
        for concurrency in self._sharers:
            concurrency.cap(each)
        first, self.capped = not self.capped, True
        return each if first else None
