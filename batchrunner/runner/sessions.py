"""Items of one session, asked one after another in input order while others are asked at the same time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.records import Item

MOST_HELD = 10_000
"""Items that may wait behind others of their session; more are left for another pass over the input."""

Arrival = Literal["goes", "waits", "later", "never"]


class Sessions:
    """Who may go, who waits behind whom, and whose session has come to an end.

    `name_of` gives an item's session, None for an item on its own. `failed` says of sessions that
    failed in an earlier run at which row. Items arrive in input order, pass after pass.
    """

    def __init__(
        self, name_of: Callable[[Item], str | None], failed: Mapping[str, int], *, most_held: int = MOST_HELD
    ) -> None:
        self._name_of, self._most_held = name_of, most_held
        self._failed: dict[str, int] = dict(failed)
        """Sessions whose item of that row failed."""
        self._names: dict[str, str] = {}
        """By item: the session of those under way."""
        self._behind: dict[str, deque[Item]] = {}
        """By session that has an item under way: those that wait behind it."""
        self._left_out: set[str] = set()
        """Sessions of which this pass has left an item for the next one."""
        self._lost: set[str] = set()
        """Sessions of which an item will stay unfinished: so will all behind it."""
        self.held = 0

    @property
    def under_way(self) -> bool:
        """Whether any item under way is part of a session."""
        return bool(self._names)

    @property
    def crowded(self) -> bool:
        """Another pass over the input would find no room for more."""
        return self.held > self._most_held // 2

    def arrive(self, item: Item) -> Arrival:
        """Where an item goes that comes out of the input; one that goes is under way from here."""
        name = self._name_of(item)
        if name is None:
            return "goes"
        if name in self._lost:
            return "never"
        if name in self._left_out:
            return "later"
        if name not in self._behind:
            self._behind[name], self._names[item.item_id] = deque(), name
            return "goes"
        if self.held >= self._most_held:
            self._left_out.add(name)
            return "later"
        self._behind[name].append(item)
        self.held += 1
        return "waits"

    def leave_out(self, item: Item) -> None:
        """An item that could have gone is left for the next pass; those behind it are, too."""
        name = self._names.pop(item.item_id, None)
        if name is not None:
            del self._behind[name]
            self._left_out.add(name)

    def rewind(self) -> None:
        self._left_out.clear()

    def fault(self, item: Item) -> str | None:
        """Why an item under way must not be asked: an earlier one of its session failed."""
        name = self._names.get(item.item_id)
        row = None if name is None else self._failed.get(name)
        if row is None or row >= item.row:
            return None
        return f"row {row} of {name} failed before it"

    def settled(self, item_id: str, row: int, *, succeeded: bool) -> Item | None:
        """An item under way has its outcome. Gives the one behind it, which is under way now."""
        name = self._names.pop(item_id, None)
        if name is None:
            return None
        if not succeeded:
            self._failed[name] = min(row, self._failed.get(name, row))
        behind = self._behind[name]
        if not behind:
            del self._behind[name]
            return None
        self.held -= 1
        item = behind.popleft()
        self._names[item.item_id] = name
        return item

    def lose(self, item_id: str) -> None:
        """An item under way stays unfinished in this run, and whatever is behind it."""
        name = self._names.pop(item_id, None)
        if name is not None:
            self.held -= len(self._behind.pop(name))
            self._lost.add(name)
