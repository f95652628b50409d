"""Which items of the input this process takes: its shard, and the first of them under a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner import sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.records import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Item i of n shards, and rows before `stop`. Deterministic, disjoint, complete."""

    index: int = 0
    shards: int = 1
    stop: int | None = None
    """The first row that is not taken; None: all are."""
    limit: int | None = None

    def count(self, checked: sources.Checked) -> int:
        """How many items are taken."""
        whole = checked.rows if checked.shard_rows is None else checked.shard_rows
        return whole if self.limit is None else min(self.limit, whole)

    def takes(self, item: Item) -> bool:
        return self.shards == 1 or sources.shard_of(item.item_id, self.shards) == self.index

    def of(self, items: Iterator[Item]) -> Iterator[Item]:
        return items if self.shards == 1 else filter(self.takes, items)

    @property
    def share(self) -> float:
        return 1.0 / self.shards


def select(source: sources.Input, *, rows: int, index: int = 0, shards: int = 1, limit: int | None = None) -> Selection:
    """The selection of a shard, its limit turned into the row behind the last item that it takes."""
    selection = Selection(index=index, shards=shards)
    if limit is None or limit >= rows:
        return selection
    if shards == 1:
        return Selection(stop=limit, limit=limit)
    for taken, item in enumerate(selection.of(source.rows()), 1):
        if taken == limit:
            return Selection(index=index, shards=shards, stop=item.row + 1, limit=limit)
    return selection
