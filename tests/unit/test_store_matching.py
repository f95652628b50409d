"""What goes on counting when input or job has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.records import Outcome
from batchrunner.store import matching
from batchrunner.store.ledger import BAD_ROW, EXHAUSTED, REJECTED, SUCCEEDED
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch

if TYPE_CHECKING:
    from pathlib import Path


def keys_of(*asked: tuple[str, str]) -> pa.Table:
    keys = matching.Keys()
    for row, (item_id, request_key) in enumerate(asked):
        keys.add(row, item_id, request_key)
    return keys.table()


def index_of(*known: tuple[str, str, int, bool]) -> pa.Table:
    """Outcomes by item, key, code and whether they are settled, numbered from 1; each cost its number."""
    rows = [
        {
            "sequence": number,
            "code": code,
            "settled": settled,
            "id_hash": matching.identity(item_id),
            "key_hash": matching.identity(key),
            "cost_usd": float(number),
            "row": 0,
            "epoch": 1,
        }
        for number, (item_id, key, code, settled) in enumerate(known, 1)
    ]
    return pa.Table.from_pylist(rows, schema=matching.INDEX)


def carried(matches: matching.Matches) -> list[tuple[int, ...]]:
    return [tuple(row.values()) for row in matches.carried.to_pylist()]


def test_the_same_item_under_the_same_key_goes_on_counting():
    index = index_of(("a", "k1", SUCCEEDED, True), ("b", "k2", REJECTED, True), ("c", "k3", EXHAUSTED, False))

    matches = matching.match(keys_of(("c", "k3"), ("new", "k1"), ("a", "k1"), ("b", "k2")), index)

    assert carried(matches) == [(0, 3, EXHAUSTED), (2, 1, SUCCEEDED), (3, 2, REJECTED)]
    assert matches.changed_items == 0


def test_an_item_by_another_name_keeps_what_it_asked_each_for_one():
    index = index_of(("a", "k", SUCCEEDED, True), ("b", "k", REJECTED, True), ("c", "k", EXHAUSTED, False))

    matches = matching.match(keys_of(("x", "k"), ("y", "k"), ("z", "k"), ("w", "other")), index)
    still_there = matching.match(keys_of(("x", "k"), ("a", "changed"), ("b", "k"), ("c", "k")), index)

    assert carried(matches) == [(0, 1, SUCCEEDED), (1, 2, REJECTED)]
    # What an item asks that is still there is its own; what it does not ask any more is for whoever does.
    assert carried(still_there) == [(0, 1, SUCCEEDED), (2, 2, REJECTED), (3, 3, EXHAUSTED)]
    assert still_there.changed_items == 1


def test_numbered_items_behind_a_row_that_was_put_in_front_keep_what_was_bought():
    index = index_of(*((str(n), f"k{n}", SUCCEEDED, True) for n in range(5)))

    matches = matching.match(keys_of(("0", "new"), *((str(n + 1), f"k{n}") for n in range(5))), index)

    assert carried(matches) == [(n + 1, n + 1, SUCCEEDED) for n in range(5)]
    assert matches.changed["row"].to_pylist() == [0]


def test_what_was_refused_before_it_was_sent_is_judged_anew():
    matches = matching.match(keys_of(("a", "k")), index_of(("a", "k", BAD_ROW, False)))

    assert carried(matches) == []
    assert matches.changed_items == 0


def test_a_success_comes_first_then_the_later_outcome():
    index = index_of(
        ("a", "k", SUCCEEDED, True),
        ("a", "k", REJECTED, False),
        ("b", "k", REJECTED, False),
        ("b", "k", EXHAUSTED, False),
    )

    matches = matching.match(keys_of(("a", "k"), ("b", "k")), index)

    assert carried(matches) == [(0, 1, SUCCEEDED), (1, 4, EXHAUSTED)]


def test_settled_items_under_another_key_are_counted_with_what_they_cost():
    index = index_of(
        ("a", "old", SUCCEEDED, True),
        ("b", "old", REJECTED, True),
        ("c", "old", EXHAUSTED, False),
        ("d", "old", SUCCEEDED, True),
    )

    matches = matching.match(keys_of(("a", "new"), ("b", "new"), ("c", "new"), ("e", "new")), index)

    assert carried(matches) == []
    assert (matches.changed_items, matches.changed_cost_usd) == (2, 3.0)
    assert matches.changed["row"].to_pylist() == [0, 1]


def test_going_back_to_an_earlier_key_finds_what_was_bought_under_it():
    index = index_of(("a", "first", SUCCEEDED, False), ("a", "second", SUCCEEDED, True))

    matches = matching.match(keys_of(("a", "first")), index)

    assert carried(matches) == [(0, 1, SUCCEEDED)]
    assert matches.changed_items == 0


def test_nothing_known_and_nothing_asked_match_nothing():
    assert matching.match(keys_of(), index_of()).carried.num_rows == 0
    assert matching.match(keys_of(("a", "k")), index_of()).changed_cost_usd is None


def test_the_index_of_a_run_says_what_is_settled(tmp_path: Path):
    def outcome(row: int, status: Any, **fields: Any) -> Outcome:
        known = {"attempts": 1, "request_key": f"k{row}"} | fields
        return Outcome(item_id=f"id-{row}", row=row, input_file="f", input_line=1, status=status, **known)

    with open_run(tmp_path) as run:
        run.begin(Epoch(input={}, asked={}, rows=4))
        run.append(outcome(0, "exhausted"))
        run.append(outcome(0, "succeeded", cost_usd=0.5))
        run.append(outcome(1, "rejected", attempts=0, error_type="bad_row", request_key=None))
        run.append(outcome(2, "rejected"))
        run.append(outcome(3, "succeeded", cost_usd=0.0, origin="reused"))
        run.finish()

        index = matching.outcome_index(run.view()).sort_by("sequence")

    assert index["code"].to_pylist() == [EXHAUSTED, SUCCEEDED, BAD_ROW, REJECTED, SUCCEEDED]
    assert index["settled"].to_pylist() == [False, True, False, True, True]
    # A copy has cost nothing; to buy it would cost what others did.
    assert index["cost_usd"].to_pylist() == [None, 0.5, None, None, None]
    matches = matching.match(keys_of(("id-0", "new"), ("id-3", "new")), index)
    assert (matches.changed_items, matches.changed_cost_usd) == (2, 1.0)
    assert index["id_hash"][0].as_py() == matching.identity("id-0")


NAMES = st.sampled_from("abc")


ASKED = st.lists(st.tuples(NAMES, NAMES), unique_by=lambda pair: pair[0])
KNOWN = st.lists(st.tuples(NAMES, NAMES, st.integers(1, 4)), max_size=12)


def check_matching(asked: list[tuple[str, str]], known: list[tuple[str, str, int]]) -> None:
    outcomes = [
        (item, key, code == SUCCEEDED, number, code)
        for number, (item, key, code) in enumerate(known, 1)
        if code != BAD_ROW
    ]
    expected = {}
    for row, pair in enumerate(asked):
        if mine := [one for one in outcomes if one[:2] == pair]:
            expected[row] = (row, *max(mine, key=lambda one: one[2:])[3:])
    unasked = {}
    for one in outcomes:
        if one[:2] not in asked and one[4] != EXHAUSTED:
            unasked[one[:2]] = max(unasked.get(one[:2], one), one, key=lambda one: one[2:])
    left = sorted(unasked.values(), key=lambda one: one[2:])
    for row, (_, key) in enumerate(asked):
        found = next((one for one in reversed(left) if one[1] == key), None)
        if row not in expected and found is not None:
            left.remove(found)
            expected[row] = (row, *found[3:])
    index = index_of(*((*one, False) for one in known))

    with pytest.MonkeyPatch.context() as patch:
        for size in (2**20, 2):
            patch.setattr(matching, "_BUCKET_ROWS", size)
            assert carried(matching.match(keys_of(*asked), index)) == sorted(expected.values())


@given(asked=ASKED, known=KNOWN)
@settings(max_examples=40, deadline=None)
def test_matching_agrees_with_a_plain_loop_whatever_the_buckets(
    asked: list[tuple[str, str]], known: list[tuple[str, str, int]]
):
    check_matching(asked, known)


@pytest.mark.slow
@given(asked=ASKED, known=KNOWN)
@settings(max_examples=400, deadline=None)
def test_many_matchings_agree_with_a_plain_loop(asked: list[tuple[str, str]], known: list[tuple[str, str, int]]):
    check_matching(asked, known)
