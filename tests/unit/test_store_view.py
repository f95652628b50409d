"""What readers see of a run, live or dead, and what it has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchrunner.errors import RunError
from batchrunner.records import Outcome
from batchrunner.store import matching
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.spending import totals
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.store.run import Run
    from batchrunner.store.view import View


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1, "request_key": f"key-{row}", "cost_usd": 0.5} | fields)


def epoch(rows: int = 10, **asked: Any) -> Epoch:
    return Epoch(input={}, asked=asked, rows=rows)


def begun(directory: Path) -> Run:
    run = open_run(directory)
    run.begin(epoch())
    return run


def current(view: View, *columns: str, **options: Any) -> list[tuple[Any, ...]]:
    batches = view.outcomes(["row", *columns], **options)
    return sorted(tuple(row.values()) for batch in batches for row in batch.to_pylist())


def test_a_live_run_shows_parts_and_journal(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0, text="in a part"))
        run.seal()
        run.append(outcome(1, text="in the journal"))

        assert current(view_run(tmp_path), "text") == [(0, "in a part"), (1, "in the journal")]


def test_a_torn_tail_does_not_trouble_a_reader(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.append(outcome(1))
        path = tmp_path / "journal" / "000001.log"
        path.write_bytes(path.read_bytes()[:-3])

        assert current(view_run(tmp_path)) == [(0,)]


def test_only_the_best_outcome_of_a_row_is_current(tmp_path: Path):
    with begun(tmp_path) as run:
        for status in ("exhausted", "succeeded", "rejected"):
            run.append(outcome(0, status=status))
            run.append(outcome(1, status="exhausted", text=status))
        run.seal()
        run.append(outcome(1, status="exhausted", text="last"))

        view = view_run(tmp_path)

    assert current(view, "status", "text") == [(0, "succeeded", None), (1, "exhausted", "last")]
    assert view.outcomes_recorded == 7


def test_outcomes_can_be_narrowed_to_columns_and_rows(tmp_path: Path):
    with begun(tmp_path) as run:
        for row in range(5):
            run.append(outcome(row))

        assert current(view_run(tmp_path), "item_id", rows=[4, 2, 9]) == [(2, "id-2"), (4, "id-4")]


def test_a_new_epoch_maps_outcomes_to_the_rows_of_the_new_input(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0, text="first"))
        run.append(outcome(1, text="gone from the input"))
        run.append(outcome(2, status="exhausted"))
        run.finish()
    with open_run(tmp_path) as run:
        keys = matching.Keys()
        for row, old in enumerate([7, 2, 0]):
            keys.add(row, f"id-{old}", f"key-{old}")
        run.begin(epoch(3), carried=matching.match(keys.table(), matching.outcome_index(run.view())).carried)
        run.append(outcome(0, item_id="id-7", text="new"))

        assert current(view_run(tmp_path), "item_id", "status", "text") == [
            (0, "id-7", "succeeded", "new"),
            (1, "id-2", "exhausted", None),
            (2, "id-0", "succeeded", "first"),
        ]
        assert run.ledger.settled_mask() == bytes([1, 0, 1])


def test_an_epoch_without_matches_starts_from_nothing(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.finish()
    with open_run(tmp_path) as run:
        run.begin(epoch(2))

        assert run.ledger.unfinished == 2
        assert current(view_run(tmp_path)) == []


def test_totals_count_everything_ever_paid_for(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0, cost_usd=1.0, prompt_tokens=10, completion_tokens=100, latency_s=2.0))
        run.append(outcome(1, status="exhausted", error_type="timeout", cost_usd=None, attempts=5, possibly_billed=2))
        run.append(outcome(1, cost_usd=0.25, completion_tokens=300, finish_reason="length", failed_prompt_tokens=7))
        run.append(outcome(9, status="rejected", error_type="bad_request", error="no such field"))
        run.append(outcome(4, status="rejected", error_type="bad_request", error="no such model"))
        run.finish()

        spent = run.spent()

    assert (spent.outcomes, spent.possibly_billed) == (5, 2)
    assert (spent.cost_usd, spent.cost_unknown) == (2.25, 1)
    assert (spent.prompt_tokens, spent.completion_tokens) == (10, 400)
    assert (spent.failed_prompt_tokens, spent.failed_completion_tokens) == (7, None)
    assert spent.length == 1
    assert spent.completion_quantiles is not None
    assert spent.completion_quantiles.p50 == 200
    assert [(one.error_type, one.items, one.first_row, one.first_id, one.first_error) for one in spent.failures] == [
        ("bad_request", 2, 4, "id-4", "no such model")
    ]


def test_totals_of_nothing_are_zero_not_unknown(tmp_path: Path):
    with begun(tmp_path) as run:
        spent = totals(run.view())

    assert (spent.outcomes, spent.cost_usd, spent.prompt_tokens, spent.failures) == (0, 0, 0, ())
    assert spent.completion_quantiles is None


def test_failures_of_an_earlier_epoch_are_counted_under_their_new_row(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(5, status="exhausted", error_type="server", error="oops"))
        run.append(outcome(6, status="exhausted", error_type="server", error="gone from the input"))
        run.finish()
    with open_run(tmp_path) as run:
        keys = matching.Keys()
        keys.add(0, "id-5", "key-5")
        run.begin(epoch(1), carried=matching.match(keys.table(), matching.outcome_index(run.view())).carried)

        assert [(one.items, one.first_row, one.first_id) for one in run.spent().failures] == [(1, 0, "id-5")]


def test_a_damaged_journal_is_refused(tmp_path: Path):
    with begun(tmp_path) as run:
        run.append(outcome(0))
        run.append(outcome(1))
        path = tmp_path / "journal" / "000001.log"
        data = bytearray(path.read_bytes())
        data[120] ^= 1
        path.write_bytes(data)

        with pytest.raises(RunError, match="at byte"):
            view_run(tmp_path)
