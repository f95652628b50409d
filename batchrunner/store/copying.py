"""Answers that are taken over instead of bought: those of other runs, or of the same request in this one."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.records import Outcome
from batchrunner.schema import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchrunner.store.view import Source, View

_HALF = 2**64
_TIMES = [field.name for field in RECORD if pa.types.is_timestamp(field.type)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A row that has no settled outcome yet: who it is."""

    row: int
    item_id: str
    file: str
    line: int | None


class Wanted:
    """Open rows by what they ask, at about 100 bytes each. `add` all, then `sort`, then look up."""

    def __init__(self) -> None:
        self._high, self._low = array("Q"), array("Q")
        self._items: list[Open] = []
        self._order = array("q")
        self._taken = bytearray()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Open, request_key: str) -> None:
        high, low = _halves(request_key)
        self._high.append(high)
        self._low.append(low)
        self._items.append(item)

    def sort(self) -> None:
        """Bring rows that ask the same together, the first of the input first."""
        order = sorted(range(len(self._items)), key=lambda at: (self._high[at], self._low[at], self._items[at].row))
        self._order, self._taken = array("q", order), bytearray(len(order))
        self._keys = array("Q", (self._high[at] for at in order))

    def take(self, request_key: str) -> list[Open]:
        """The rows that ask this and were not taken before; they are taken now."""
        high, low = _halves(request_key)
        found = []
        for place in range(bisect_left(self._keys, high), len(self._keys)):
            if self._keys[place] != high:
                break
            at = self._order[place]
            if self._low[at] == low and not self._taken[place]:
                self._taken[place] = 1
                found.append(self._items[at])
        return found

    def asks(self, request_key: str) -> bool:
        """Whether a row that was not taken asks this."""
        high, low = _halves(request_key)
        place = bisect_left(self._keys, high)
        while place < len(self._keys) and self._keys[place] == high:
            if self._low[self._order[place]] == low and not self._taken[place]:
                return True
            place += 1
        return False

    def followers(self) -> dict[int, list[Open]]:
        """By the first row that asks something, and was not taken: the other rows that ask the same."""
        found: dict[int, list[Open]] = {}
        first, known = 0, None
        for place, at in enumerate(self._order):
            if self._taken[place]:
                continue
            key = self._high[at], self._low[at]
            if key != known:
                first, known = self._items[at].row, key
            else:
                found.setdefault(first, []).append(self._items[at])
        return found


def copies(
    view: View,
    wanted: Wanted,
    *,
    origin: str,
    statuses: Sequence[str],
    accepts: Callable[[Outcome], bool] = lambda _: True,
) -> Iterator[Outcome]:
    """What a run's current outcomes of these statuses answer of the rows that are wanted; each row is taken once.

    An outcome that is not accepted answers nothing. A copy has the tokens of its source, and cost nothing. Raises
    RunError where a part cannot be read.
    """
    for source in view.sources:
        asked = _asked(view, source, statuses)
        numbers = [number for number, key in asked if wanted.asks(key)]
        if numbers:
            for found in filter(accepts, _read(view, source, numbers)):
                for item in wanted.take(found.request_key or ""):
                    yield copy_for(item, found, origin)


def count_copies(view: View, wanted: Wanted, *, statuses: Sequence[str]) -> int:
    """How many rows `copies` would answer; they are taken."""
    return sum(len(wanted.take(key)) for source in view.sources for _, key in _asked(view, source, statuses))


def _asked(view: View, source: Source, statuses: Sequence[str]) -> list[tuple[int, str]]:
    """The numbers and request keys of a source's current outcomes of these statuses."""
    table = view.read_current(source, ["request_key", "status"])
    table = table.filter(pc.and_(pc.is_in(table["status"], pa.array(statuses)), pc.is_valid(table["request_key"])))
    return list(zip(table["sequence"].to_pylist(), table["request_key"].to_pylist(), strict=True))


def _read(view: View, source: Source, numbers: list[int]) -> Iterator[Outcome]:
    table = view.read_current(source, RECORD.names)
    yield from _outcomes(table.filter(pc.is_in(table["sequence"], pa.array(numbers, pa.int64()))).select(RECORD.names))


def answers(view: View, *, errors: Sequence[str]) -> Iterator[Outcome]:
    """The current outcomes that were rejected for one of these errors, or where there are none those that succeeded.

    Without what only the wire said of them: reply, choices.
    """
    names = [name for name in RECORD.names if name not in ("response", "choices")] if not errors else RECORD.names
    for source in view.sources:
        table = view.read_current(source, names).select(names)
        wanted = pc.is_in(table["error_type"], pa.array(errors)) if errors else pc.equal(table["status"], "succeeded")
        yield from _outcomes(table.filter(wanted))


def verdict_revised(outcome: Outcome) -> Outcome:
    """An answer that was refused by our own judgement, and is taken now; what it cost is in the books already."""
    return replace(
        outcome,
        status="succeeded",
        error_type=None,
        error=None,
        origin="reparsed",
        cost_usd=0.0,
        failed_prompt_tokens=None,
        failed_completion_tokens=None,
        possibly_billed=0,
    )


def _outcomes(table: pa.Table) -> Iterator[Outcome]:
    for name in _TIMES:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    for batch in table.to_batches(max_chunksize=256):
        for fields in batch.to_pylist():
            yield Outcome(**fields)


def copy_for(item: Open, outcome: Outcome, origin: str) -> Outcome:
    """The same outcome for another row, at no cost."""
    return replace(
        outcome,
        item_id=item.item_id,
        row=item.row,
        input_file=item.file,
        input_line=item.line,
        origin=origin,
        cost_usd=0.0,
        failed_prompt_tokens=None,
        failed_completion_tokens=None,
        possibly_billed=0,
    )


def _halves(request_key: str) -> tuple[int, int]:
    """A request key, 32 hexadecimal digits, as two numbers; another text is nobody's key."""
    try:
        return divmod(int(request_key, 16), _HALF) if len(request_key) == 32 else (0, 0)
    except ValueError:
        return 0, 0
