"""What a runner draws from, and whom it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.records import Item, Outcome


class Feed(Protocol):
    """Where items come from, in input order. Never called concurrently."""

    async def chunk(self) -> Sequence[Item]:
        """Some more items of this pass; none at its end."""

    def skip(self, item: Item) -> None:
        """This item's lane is full: keep it for the next pass."""

    def rewind(self) -> bool:
        """Begin another pass over what was skipped; False when nothing was."""


class Watch(Protocol):
    """Who is told what happens. Returns at once, raises nothing."""

    def settled(self, outcome: Outcome) -> None: ...
    def answered(self, turn: Outcome) -> None: ...
    def left(self, *, possibly_billed: int) -> None: ...
    def tried(self) -> None: ...
