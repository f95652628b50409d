"""Conversations that a run left in the middle, and what the books make of their answered turns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner.records import Outcome
from batchrunner.schema import RECORD
from batchrunner.store import begun, results, totals
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 5


def record(item: int, status: str, *answers: str, **fields: Any) -> Outcome:
    known: dict[str, Any] = {
        "item_id": f"id-{item}",
        "row": item,
        "input_file": "f",
        "input_line": None,
        "status": status,
        "attempts": 1,
        "request_key": f"key-{item}",
        "started_at": 1_000,
        "cost_usd": 1.0,
        "prompt_tokens": 10,
        "turns": json.dumps([{"text": answer} for answer in answers]) if answers else None,
    }
    return Outcome(**known | fields)


def write(directory: Path, records: list[Outcome], *, seal_every: int = 100) -> None:
    with open_run(directory) as run:
        run.begin(Epoch(input={}, asked={}, rows=ROWS))
        for number, one in enumerate(records, 1):
            run.append(one)
            if number % seal_every == 0:
                run.seal()
        run.finish()


def said(directory: Path) -> dict[str, list[str]]:
    found = begun(view_run(directory))
    return {item: [answer["text"] for answer in one.answers] for item, one in found.items()}


@pytest.mark.parametrize("seal_every", [1, 2, 100])
def test_the_answers_to_an_items_turns_are_put_together(tmp_path, seal_every):
    records = [
        record(0, "unfinished", "a"),
        record(1, "unfinished", "x"),
        record(0, "unfinished", "b", attempts=4),
        record(2, "succeeded"),
    ]
    write(tmp_path, records, seal_every=seal_every)

    assert said(tmp_path) == {"id-0": ["a", "b"], "id-1": ["x"]}
    assert begun(view_run(tmp_path))["id-0"].attempts == 4


def test_being_out_of_attempts_ends_no_conversation(tmp_path):
    write(tmp_path, [record(0, "unfinished", "a"), record(0, "exhausted", "a"), record(0, "unfinished", "b")])

    assert said(tmp_path) == {"id-0": ["a", "b"]}


@pytest.mark.parametrize("end", ["succeeded", "rejected"])
def test_a_success_or_a_refusal_ends_it(tmp_path, end):
    write(tmp_path, [record(0, "unfinished", "a"), record(0, end, "a", "b")])

    assert said(tmp_path) == {}


def test_what_was_rejected_unsent_ends_nothing(tmp_path):
    """A session's failure, or a row that could not be asked for a while, costs no answer."""
    write(tmp_path, [record(0, "unfinished", "a"), record(0, "rejected", attempts=0, error_type="session")])

    assert said(tmp_path) == {"id-0": ["a"]}


def test_a_conversation_that_began_anew_has_only_its_own_answers(tmp_path):
    write(tmp_path, [record(0, "unfinished", "a"), record(0, "unfinished", "b", started_at=2_000)])

    assert said(tmp_path) == {"id-0": ["b"]}


def test_an_answered_turn_is_no_outcome_and_yet_was_paid_for(tmp_path):
    write(tmp_path, [record(0, "unfinished", "a"), record(0, "succeeded", "a", "b"), record(1, "unfinished", "x")])
    view = view_run(tmp_path)

    assert (view.ledger.succeeded, view.ledger.unfinished) == (1, ROWS - 1)
    assert totals(view).cost_usd == 3.0
    assert totals(view).prompt_tokens == 30
    assert [batch.num_rows for batch in view.outcomes()] == [1]


def test_a_conversations_cost_in_the_results_is_that_of_all_its_turns(tmp_path):
    first = record(0, "unfinished", "a", failed_prompt_tokens=7)
    write(tmp_path, [first, record(0, "succeeded", "a", "b"), record(1, "succeeded")])
    schema = results.result_schema(pa.schema([]), has_turns=True)
    rows = [{"row": row, "item_id": f"id-{row}", "input_file": "f", "input_line": row} for row in range(2)]

    (batch,) = results.result_batches(view_run(tmp_path), [pa.RecordBatch.from_pylist(rows)], schema=schema)

    assert batch["cost_usd"].to_pylist() == [2.0, 1.0]
    assert batch["prompt_tokens"].to_pylist() == [20, 10]
    assert batch["failed_prompt_tokens"].to_pylist() == [7, None]
    assert [text and len(json.loads(text)) for text in batch["turns"].to_pylist()] == [2, None]


def test_a_part_from_before_there_were_turns_is_read(tmp_path):
    write(tmp_path, [record(0, "succeeded")])
    (part,) = (tmp_path / "parts").iterdir()
    pq.write_table(pq.read_table(part).drop_columns(["turns"]), part)

    (batch,) = view_run(tmp_path).outcomes(RECORD.names)

    assert batch["turns"].to_pylist() == [None]
