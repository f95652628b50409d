"""What a run has settled already: some of its items with what they really used, to foretell the rest by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner import store
from batchrunner.errors import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchrunner.assemble.prepare import Prepared
    from batchrunner.records import Request

MOST = 2_000
"""Settled items whose requests are made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An item that was bought: its request, and all that was used for it, failed attempts included."""

    request: Request
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def settled_items(view: store.View, ledger: store.Ledger, prepared: Prepared) -> list[Settled]:
    """Settled items of the current input, at most `MOST` and evenly spread over it; copies cost nothing and are none.

    Items whose tokens are not known are left out.
    """
    spent = store.spent_on(view, ledger)
    picked = {each.row: each for each in _spread(spent, MOST)}
    return list(_matched(picked, prepared))


def _spread(spent: Sequence[store.Spent], most: int) -> Iterator[store.Spent]:
    step = max(1.0, len(spent) / most)
    return (spent[int(at * step)] for at in range(min(len(spent), most)))


def _matched(picked: Mapping[int, store.Spent], prepared: Prepared) -> Iterator[Settled]:
    if not picked:
        return
    skip = bytearray(b"\1" * prepared.checked.rows)
    for row in picked:
        skip[row] = 0
    for item in prepared.ready.source.rows(skip=skip, stop=max(picked) + 1):
        try:
            request = prepared.request(item)
        except BadRow:
            continue
        spent = picked[item.row]
        yield Settled(
            request=request,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=spent.cost_usd,
        )
