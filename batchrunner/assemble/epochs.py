"""Whether what is settled still counts: by row number while nothing changed, else by what each row asks now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner import store
from batchrunner.assemble.prepare import remember
from batchrunner.errors import JobChanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.assemble.prepare import Prepared


def take_up(run: store.Run, prepared: Prepared, *, accept_change: bool, ways_out: tuple[str, ...] = ()) -> None:
    """Bring the run's books up to the present input and job.

    Raises JobChanged when settled items would be bought again. The fast path renders nothing: rows are known
    by number. Otherwise every row's request is made once more and matched with the outcomes under the same key.
    """
    if holds(run.commit, prepared):
        run.begin()
        return
    epoch = store.Epoch(input=remember(prepared), asked=prepared.asked, rows=prepared.checked.rows)
    if not run.view().outcomes_recorded:
        run.begin(epoch)
        return
    matches = compare(run.view(), prepared)
    if not accept_change:
        refuse(run, prepared, matches, ways_out)
    run.begin(epoch, carried=matches.carried)


def holds(commit: store.Commit, prepared: Prepared) -> bool:
    """Nothing changed since the epoch began: neither input, nor job, nor this program."""
    known = commit.input
    return bool(
        commit.epoch
        and known.get("fingerprint") == prepared.fingerprint
        and known.get("version") == prepared.identity["version"]
        and dict(commit.asked) == dict(prepared.asked)
    )


def compare(view: store.View, prepared: Prepared) -> store.Matches:
    """Match the rows as they ask now with the outcomes that there are. A row that cannot be asked matches none."""
    keys = store.Keys()
    for item in prepared.ready.source.rows():
        key = prepared.key_of(item)
        if key is not None:
            keys.add(item.row, item.item_id, key)
    return store.match(keys.table(), store.outcome_index(view))


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Dotted names of what the job asks differently."""
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def refuse(run: store.Run, prepared: Prepared, matches: store.Matches, ways_out: tuple[str, ...]) -> None:
    """Exit 13 where the job, or the place of its rows, is another one than the run remembers."""
    commit, where = run.commit, run.directory
    rows_before, rows_now = commit.input.get("rows_path"), remember(prepared)["rows_path"]
    # The same items under another name, as `export --format openai-batch` writes them, are no other input.
    same = matches.carried.num_rows == prepared.checked.rows == commit.rows
    if rows_before and rows_now and rows_before != rows_now and not same:
        raise JobChanged(f"{where} is the run of {rows_before}, not of {rows_now}; nothing was sent", *ways_out)
    changed = changed_keys(commit.asked, prepared.asked)
    if not changed or not matches.changed_items:
        return
    usd = matches.changed_cost_usd
    cost = " at an unknown price" if usd is None else f" for about ${usd:,.{2 if usd >= 1 else 4}f}"
    what = ", ".join(changed)
    raise JobChanged(
        f"the job changed since {where} began ({what}): {matches.changed_items:,} settled items would be bought again"
        f"{cost}; nothing was sent",
        *ways_out,
    )
