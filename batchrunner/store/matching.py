"""Which outcomes go on counting once input or job has changed: those of the same item and request key."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.store import parts
from batchrunner.store.ledger import EXHAUSTED, REJECTED, SUCCEEDED, Ledger
from batchrunner.store.spending import COPIED
from batchrunner.store.view import CARRIED, note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.store.view import Source, View

KEYS = pa.schema([("row", pa.int64()), ("id_hash", pa.int64()), ("key_hash", pa.int64())])
"""What the current input asks: row by row the item and its request key."""

INDEX = pa.schema(
    [
        ("sequence", pa.int64()),
        ("code", pa.uint8()),
        ("settled", pa.bool_()),
        ("id_hash", pa.int64()),
        ("key_hash", pa.int64()),
        ("cost_usd", pa.float64()),
        ("row", pa.int64()),
        ("epoch", pa.int32()),
    ]
)
"""Every outcome ever recorded. `settled`: by the provider's word, and current in the epoch that ends (where known)."""

_BUCKET_ROWS = 2**20
_SEQUENCE_BITS = 2**59 - 1


def identity(text: str) -> int:
    """64 bits that stand for an item id or a request key."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True)


class Keys:
    """What the current input asks, collected row by row at 24 bytes each."""

    def __init__(self) -> None:
        self._rows, self._ids, self._keys = array("q"), array("q"), array("q")

    def add(self, row: int, item_id: str, request_key: str) -> None:
        self._rows.append(row)
        self._ids.append(identity(item_id))
        self._keys.append(identity(request_key))

    def table(self) -> pa.Table:
        """The rows so far, as a table of `KEYS`."""
        return pa.table([_column(self._rows), _column(self._ids), _column(self._keys)], schema=KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """How the current input meets what was bought before."""

    carried: pa.Table
    """Outcomes that count for the current input, as `Run.begin` takes them; by row."""
    changed: pa.Table
    """`row` and `cost_usd` of the items that are settled, but under another request key; by row."""

    @property
    def changed_items(self) -> int:
        return int(self.changed.num_rows)

    @property
    def changed_cost_usd(self) -> float | None:
        """About what the changed items cost, copies what those that were bought cost in the mean; None when no price is
        known."""
        mean: float | None = pc.mean(self.changed["cost_usd"]).as_py()
        return None if mean is None else mean * self.changed_items


def carried_ledger(matches: Matches, rows: int) -> Ledger:
    """The best outcome of each of `rows` rows, if the current input were taken up with these matches."""
    ledger = Ledger(rows)
    note(ledger, matches.carried, matches.carried["code"].combine_chunks(), "the carried outcomes")
    return ledger


def outcome_index(view: View) -> pa.Table:
    """Every outcome of the run, as a table of `INDEX`: what `match` needs, and no text."""
    pieces = [_index_of(view, source) for source in view.sources]
    return pa.concat_tables([INDEX.empty_table(), *pieces])


def match(keys: pa.Table, index: pa.Table) -> Matches:
    """Find the outcome that counts for each row of the input, and the settled items that have none.

    For one item and key a success comes first, then the later outcome. What was refused before it was
    sent never counts: it is judged anew. Exhausted outcomes are carried, and stay open. What was settled for an item
    that is gone, or asks something else now, counts for one that asks the same, each for one: an item may get another
    name, as numbered ones do when a row is put in front, and those of a job that becomes a matrix.
    """
    bucket_count = 1 << (max(keys.num_rows, index.num_rows) // _BUCKET_ROWS).bit_length()
    carried, changed, left = [CARRIED.empty_table()], [_CHANGED.empty_table()], [_LEFT.empty_table()]
    by_item = zip(_buckets(keys, bucket_count, "id_hash"), _buckets(index, bucket_count, "id_hash"), strict=True)
    for some_keys, some_outcomes in by_item:
        counting = _counting(some_keys, some_outcomes)
        carried.append(counting)
        changed.append(_settled_elsewhere(some_keys, some_outcomes, counting))
        left.append(_left(some_keys, some_outcomes))
    others = _of_others(keys, pa.concat_tables(carried), pa.concat_tables(left), bucket_count)
    still_open = pc.invert(pc.is_in(pa.concat_tables(changed)["row"], others["row"].combine_chunks()))
    return Matches(
        carried=pa.concat_tables([*carried, others]).sort_by("row"),
        changed=pa.concat_tables(changed).filter(still_open).sort_by("row"),
    )


_LEFT = pa.schema([("key_hash", pa.int64()), ("rank", pa.int64())])
"""Settled outcomes of what no item of theirs asks any more."""
_CHANGED = pa.schema([("row", pa.int64()), ("cost_usd", pa.float64())])


def _index_of(view: View, source: Source) -> pa.Table:
    names = [
        "sequence",
        "item_id",
        "request_key",
        "status",
        "error_type",
        "attempts",
        "cost_usd",
        "origin",
        "row",
        "epoch",
    ]
    table = source.read(names)
    codes = parts.codes(table)
    by_provider = pc.is_in(codes, pa.array([SUCCEEDED, REJECTED], pa.uint8()))
    if view.commit.forgot_input:
        current: pa.Array = pa.repeat(True, table.num_rows)
    else:
        current = pc.is_in(table["sequence"], view.keep_current(source, table)["sequence"].combine_chunks())
    copied = pc.is_in(table["origin"], pa.array(COPIED))
    columns = {
        "sequence": table["sequence"],
        "code": codes,
        "settled": pc.and_(current, by_provider),
        "id_hash": _hashes(table["item_id"]),
        "key_hash": _hashes(table["request_key"]),
        "cost_usd": pc.if_else(copied, pa.scalar(None, pa.float64()), table["cost_usd"]),
        "row": table["row"],
        "epoch": table["epoch"],
    }
    return pa.table(columns, schema=INDEX)


def _buckets(table: pa.Table, count: int, by: str) -> Iterator[pa.Table]:
    """The table in `count` pieces by a hash, so that a join never holds more than one of them."""
    if count == 1:
        yield table
        return
    bucket = pc.bit_wise_and(table[by], count - 1)
    for number in range(count):
        yield table.filter(pc.equal(bucket, number))


def _counting(keys: pa.Table, index: pa.Table) -> pa.Table:
    best = _best(index, (SUCCEEDED, REJECTED, EXHAUSTED))
    return _carried(keys.join(best, ["id_hash", "key_hash"], join_type="inner"))


def _best(index: pa.Table, codes: Sequence[int]) -> pa.Table:
    """The outcome of each item and key that counts, among those of these codes: the highest `rank`."""
    usable = index.filter(pc.is_in(index["code"], pa.array(codes, pa.uint8())))
    succeeded = pc.equal(usable["code"], SUCCEEDED).cast(pa.int64())
    rank = pc.add(pc.shift_left(succeeded, 62), pc.shift_left(usable["sequence"], 3))
    ranked = usable.select(["id_hash", "key_hash"]).append_column("rank", pc.add(rank, usable["code"].cast(pa.int64())))
    best = ranked.group_by(["id_hash", "key_hash"]).aggregate([("rank", "max")])
    return best.rename_columns(["rank" if name == "rank_max" else name for name in best.column_names])


def _carried(found: pa.Table) -> pa.Table:
    """Rows with the `rank` of an outcome, as a table of `CARRIED`."""
    sequence = pc.bit_wise_and(pc.shift_right(found["rank"], 3), _SEQUENCE_BITS)
    code = pc.bit_wise_and(found["rank"], 7).cast(pa.uint8())
    return pa.table({"row": found["row"], "sequence": sequence, "code": code}, schema=CARRIED)


def _left(keys: pa.Table, index: pa.Table) -> pa.Table:
    best = _best(index, (SUCCEEDED, REJECTED))
    return best.join(keys, ["id_hash", "key_hash"], join_type="left anti").select(_LEFT.names).cast(_LEFT)


def _of_others(keys: pa.Table, carried: pa.Table, left: pa.Table, bucket_count: int) -> pa.Table:
    """What is left over of others, for rows that ask the same and have nothing of their own."""
    found = [CARRIED.empty_table()]
    if left.num_rows:
        without = keys.filter(pc.invert(pc.is_in(keys["row"], carried["row"].combine_chunks())))
        by_key = zip(_buckets(without, bucket_count, "key_hash"), _buckets(left, bucket_count, "key_hash"), strict=True)
        for rows, outcomes in by_key:
            asked = _numbered(
                rows.select(["key_hash", "row"]).sort_by([("key_hash", "ascending"), ("row", "ascending")])
            )
            best = _numbered(outcomes.sort_by([("key_hash", "ascending"), ("rank", "descending")]))
            found.append(_carried(asked.join(best, ["key_hash", "place"], join_type="inner")))
    return pa.concat_tables(found)


def _numbered(table: pa.Table) -> pa.Table:
    """A table in order of its keys, each row with its `place` among those of the same key."""
    keys = table["key_hash"].combine_chunks()
    at = pa.array(range(len(keys)), pa.int64())
    if not len(keys):
        return table.append_column("place", at)
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))])
    start = pc.cumulative_max(pc.if_else(first, at, 0))
    return table.append_column("place", pc.subtract(at, start))


def _settled_elsewhere(keys: pa.Table, index: pa.Table, counting: pa.Table) -> pa.Table:
    settled = pc.is_in(counting["code"], pa.array([SUCCEEDED, REJECTED], pa.uint8()))
    open_rows = keys.filter(pc.invert(pc.is_in(keys["row"], counting.filter(settled)["row"].combine_chunks())))
    # One for each item, also where it is not known any more which of them was current.
    before = index.filter(index["settled"]).group_by("id_hash").aggregate([("cost_usd", "max")])
    before = before.rename_columns({"id_hash": "id_hash", "cost_usd_max": "cost_usd"})
    return open_rows.select(["row", "id_hash"]).join(before, "id_hash", join_type="inner").select(_CHANGED.names)


def _hashes(texts: pa.ChunkedArray) -> pa.Array:
    # 0 for what has no key: it is never carried, as it never was sent.
    return _column(array("q", (0 if text is None else identity(text) for text in texts.to_pylist())))


def _column(numbers: array[int]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
