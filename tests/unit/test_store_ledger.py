"""The best outcome of each row."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from batchrunner.store.ledger import BAD_ROW, EXHAUSTED, NONE, REJECTED, SUCCEEDED, Ledger

ROWS = 4
NOTES = st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(1, 4)), max_size=30)


def test_a_worse_outcome_never_replaces_a_success():
    ledger = Ledger(1)

    ledger.note(0, 1, SUCCEEDED)
    ledger.note(0, 2, REJECTED)

    assert (ledger.codes[0], ledger.sequence[0]) == (SUCCEEDED, 1)


def test_among_equals_the_later_outcome_wins():
    ledger = Ledger(2)

    for sequence, code in enumerate([EXHAUSTED, REJECTED, EXHAUSTED], 1):
        ledger.note(0, sequence, code)
    ledger.note(1, 9, SUCCEEDED)
    ledger.note(1, 8, SUCCEEDED)

    assert (ledger.codes[0], ledger.sequence[0]) == (EXHAUSTED, 3)
    assert ledger.sequence[1] == 9


def test_settled_is_what_needs_no_request():
    ledger = Ledger(5)

    for row, code in enumerate([SUCCEEDED, REJECTED, EXHAUSTED, BAD_ROW]):
        ledger.note(row, row + 1, code)

    assert ledger.settled_mask() == bytes([1, 1, 0, 0, 0])
    assert [ledger.is_settled(row) for row in range(5)] == [True, True, False, False, False]
    assert (ledger.settled, ledger.unfinished) == (2, 1)
    assert (ledger.succeeded, ledger.rejected, ledger.exhausted) == (1, 2, 1)


@given(NOTES, st.dictionaries(st.integers(0, ROWS - 1), st.integers(NONE, BAD_ROW)))
def test_ascending_rows_count_as_they_do_one_by_one(before: list[tuple[int, int]], later: dict[int, int]):
    single, bulk = Ledger(ROWS), Ledger(ROWS)
    for ledger in (single, bulk):
        for sequence, (row, code) in enumerate(before, 1):
            ledger.note(row, sequence, code)
    rows = array("q", sorted(later))
    sequences = array("q", range(len(before) + 1, len(before) + 1 + len(rows)))

    for row, sequence in zip(rows, sequences, strict=True):
        single.note(row, sequence, later[row])
    bulk.note_ascending(memoryview(rows), memoryview(sequences), memoryview(bytes(later[row] for row in rows)))

    assert (single.sequence, single.codes, single.counts) == (bulk.sequence, bulk.codes, bulk.counts)


@given(NOTES)
def test_one_by_one_and_all_at_once_agree_and_counts_add_up(notes: list[tuple[int, int]]):
    single, bulk = Ledger(ROWS), Ledger(ROWS)
    rows, codes = [row for row, _ in notes], [code for _, code in notes]
    sequences = list(range(1, len(notes) + 1))

    for row, sequence, code in zip(rows, sequences, codes, strict=True):
        single.note(row, sequence, code)
    bulk.note_all(reversed(rows), reversed(sequences), reversed(codes))

    assert (single.sequence, single.codes, single.counts) == (bulk.sequence, bulk.codes, bulk.counts)
    assert single.counts == [single.codes.count(code) for code in range(NONE, BAD_ROW + 1)]
