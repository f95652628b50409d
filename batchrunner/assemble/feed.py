"""Items out of the input, in chunks read in a thread, over as many passes as lanes that fill up make needed."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from anyio import to_thread

from batchrunner.store import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner import sources
    from batchrunner.assemble.prepare import Prepared
    from batchrunner.assemble.selection import Selection
    from batchrunner.records import Item
    from batchrunner.store import Ledger

CHUNK_ITEMS = 256


class InputFeed:
    """The items of an input that are wanted, in input order. Implements `runner.Feed`.

    `skip` holds one byte for each row of the input; a row whose byte is not zero is passed over.
    """

    def __init__(self, source: sources.Input, selection: Selection, *, skip: bytearray, wanted: int) -> None:
        self._source, self._selection = source, selection
        self.wanted = wanted
        """How many items this feed is to give."""
        self._skipped: list[int] = []
        self._rows = len(skip)
        self._items = self._pass(skip)

    def _pass(self, skip: bytearray) -> Iterator[Item]:
        return self._selection.of(self._source.rows(skip=skip, stop=self._selection.stop))

    async def chunk(self) -> Sequence[Item]:
        return await to_thread.run_sync(lambda: list(islice(self._items, CHUNK_ITEMS)))

    def skip(self, item: Item) -> None:
        self._skipped.append(item.row)

    def rewind(self) -> bool:
        if not self._skipped:
            return False
        skip = bytearray(b"\1") * self._rows
        for row in self._skipped:
            skip[row] = 0
        self._skipped = []
        self._items = self._pass(skip)
        return True


def failed_sessions(prepared: Prepared, ledger: Ledger, skip: bytearray) -> dict[str, int]:
    """Sessions with an item that failed before and is not tried now (`skip`), and the first such row of each."""
    failed = ledger.codes.translate(FAILED)
    if prepared.asker.name_session is None or 1 not in failed:
        return {}
    others = bytearray(not (left and bad) for left, bad in zip(skip, failed, strict=True))
    found: dict[str, int] = {}
    for item in prepared.ready.source.rows(skip=others):
        name = prepared.session_of(item)
        if name is not None:
            found.setdefault(name, item.row)
    return found
