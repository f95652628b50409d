"""Items that were left between two answers: a conversation, or one whose answer is to be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.records import Begun

if TYPE_CHECKING:
    from batchrunner.store.view import View

_COLUMNS = ("item_id", "status", "attempts", "sequence", "started_at", "request_key", "sent_changes", "turns")
_LIGHT = ("item_id", "status", "attempts", "sequence")
_ENDS = pa.array(["succeeded", "rejected"])
_FACTS = ("request_key", "sent_changes", "attempts", "started_at")


def begun(view: View) -> dict[str, Begun]:
    """By item: what a run can go on with, each with all of its answers so far.

    An item's success or refusal ends its conversation; being out of attempts does not.
    """
    sources = [
        source for source in view.sources if "unfinished" in source.read(["status"])["status"].unique().to_pylist()
    ]
    if not sources:
        return {}
    turns = pa.concat_tables(_turns(source.read(_LIGHT)) for source in sources)
    outcomes = (source.read(_LIGHT) for source in view.sources)
    old = pa.concat_tables(table.filter(pc.is_in(table["item_id"], turns["item_id"])) for table in outcomes)
    open_still = pc.greater(turns["sequence"], last_ends(old, turns["item_id"]))
    wanted = turns["sequence"].filter(open_still)
    found: dict[str, Begun] = {}
    for source in sources:
        table = source.read(_COLUMNS)
        table = table.filter(pc.is_in(table["sequence"], wanted)).sort_by("sequence")
        table = table.set_column(_COLUMNS.index("started_at"), "started_at", table["started_at"].cast("int64"))
        for record in table.to_pylist():
            _take(found, record)
    return found


def last_ends(table: pa.Table, items: pa.ChunkedArray) -> pa.Array:
    """For each item the number of its last outcome in a table that ended a conversation; 0 for none."""
    found = table.filter(ends(table)).group_by("item_id").aggregate([("sequence", "max")])
    return pc.fill_null(found["sequence_max"].take(pc.index_in(items, found["item_id"].combine_chunks())), 0)


def ends(table: pa.Table) -> pa.ChunkedArray:
    """Which outcomes ended their conversation, by `status` and `attempts`."""
    return pc.and_(pc.is_in(table["status"], _ENDS), pc.greater(table["attempts"], 0))


def _turns(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], "unfinished"))


def _take(found: dict[str, Begun], record: dict[str, Any]) -> None:
    before = found.pop(record["item_id"], None)
    answers = tuple(orjson.loads(record["turns"]))
    if before is not None and before.started_at == record["started_at"]:
        answers = before.answers + answers
    found[record["item_id"]] = Begun(answers=answers, **{name: record[name] for name in _FACTS})
