"""Conversations that were left in the middle: what has been answered of their turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.records import Begun

if TYPE_CHECKING:
    from batchrunner.store.view import View

_COLUMNS = ("item_id", "status", "attempts", "sequence", "started_at", "request_key", "sent_changes", "turns")
_ENDS = pa.array(["succeeded", "rejected"])
_FACTS = ("request_key", "sent_changes", "attempts", "started_at")


def begun(view: View) -> dict[str, Begun]:
    """By item: the conversations of a run that can go on, each with all of its answers so far.

    An item's success or refusal ends its conversation; being out of attempts does not.
    """
    found: dict[str, Begun] = {}
    for source in view.sources:
        table = source.read(_COLUMNS).sort_by("sequence")
        table = table.filter(pc.or_(ends(table), pc.equal(table["status"], "unfinished")))
        table = table.set_column(
            table.column_names.index("started_at"), "started_at", table["started_at"].cast("int64")
        )
        for record in table.to_pylist():
            _take(found, record)
    return found


def ends(table: pa.Table) -> pa.ChunkedArray:
    """Which outcomes ended their conversation, by `status` and `attempts`."""
    return pc.and_(pc.is_in(table["status"], _ENDS), pc.greater(table["attempts"], 0))


def _take(found: dict[str, Begun], record: dict[str, Any]) -> None:
    before = found.pop(record["item_id"], None)
    if record["status"] != "unfinished":
        return
    answers = tuple(orjson.loads(record["turns"]))
    same = before is not None and before.started_at == record["started_at"]
    if same and before is not None:
        answers = before.answers + answers
    found[record["item_id"]] = Begun(answers=answers, **{name: record[name] for name in _FACTS})
