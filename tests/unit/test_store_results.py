"""The results table: today's input joined with its outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner.errors import StoreError
from batchrunner.records import Outcome
from batchrunner.schema import OUTCOME
from batchrunner.store import matching, results
from batchrunner.store.joining import Join
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEEP = pa.schema([("subject", pa.string()), ("tags", pa.list_(pa.int64()))])
INPUT = pa.schema(
    [("row", pa.int64()), *((n, pa.string()) for n in ("item_id", "input_file")), ("input_line", pa.int64()), *KEEP]
)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def outcome(row: int, **fields: Any) -> Outcome:
    known = {"item_id": f"id-{row}", "row": row, "input_file": "old", "input_line": 99, "status": "succeeded"}
    return Outcome(**known | {"attempts": 1, "request_key": f"key-{row}", "cost_usd": 1.0} | fields)


def input_of(rows: int, *, batch: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, batch):
        lines = [
            {
                "row": row,
                "item_id": f"id-{row}",
                "input_file": "f",
                "input_line": row + 1,
                "subject": f"s{row}",
                "tags": [row],
            }
            for row in range(start, min(rows, start + batch))
        ]
        yield pa.RecordBatch.from_pylist(lines, schema=INPUT)


def run_of(directory: Path, outcomes: list[Outcome], *, rows: int, seal_every: int = 4) -> None:
    with open_run(directory) as run:
        run.begin(Epoch(input={}, asked={}, rows=rows))
        for number, one in enumerate(outcomes, 1):
            run.append(one)
            if number % seal_every == 0:
                run.seal()
        run.finish()


def build(directory: Path, rows: int, **options: Any) -> pa.Table:
    target = directory / "results.parquet"
    metadata = {"job": "nightly"}
    count = results.build_results(
        view_run(directory), input_of(rows), target, schema=results.result_schema(KEEP), metadata=metadata, **options
    )
    table = pq.read_table(target)
    assert table.num_rows == count
    return table


def test_results_have_one_row_per_item_in_input_order(tmp_path: Path):
    run_of(tmp_path, [outcome(row, text=f"t{row}") for row in (4, 0, 3, 2, 1)], rows=5)

    table = build(tmp_path, 5, mode=0o644)

    assert table.schema.names == [*OUTCOME.names, "subject", "tags"]
    assert table["row"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["text"].to_pylist() == [f"t{row}" for row in range(5)]
    assert table["input_file"].to_pylist() == ["f"] * 5
    assert table["tags"].to_pylist() == [[row] for row in range(5)]
    assert table.schema.metadata[b"job"] == b"nightly"
    assert (tmp_path / "results.parquet").stat().st_mode & 0o777 == 0o644


def test_a_row_without_an_outcome_has_nulls(tmp_path: Path):
    run_of(tmp_path, [outcome(1)], rows=3)

    batches = list(
        results.result_batches(view_run(tmp_path), input_of(3), schema=results.result_schema(KEEP), scratch=tmp_path)
    )

    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["item_id"], row["status"], row["cost_usd"]) for row in rows] == [
        ("id-0", None, None),
        ("id-1", "succeeded", 1.0),
        ("id-2", None, None),
    ]


@pytest.mark.parametrize("bucket_bytes", [1, 10**9])
def test_outcomes_alone_give_the_same_table_where_they_know_all(tmp_path: Path, bucket_bytes: int, monkeypatch):
    monkeypatch.setattr(Join.__init__, "__kwdefaults__", {"bucket_bytes": bucket_bytes})
    first = [outcome(row, input_file="f", input_line=row + 1, status="exhausted") for row in (3, 0)]
    later = [outcome(row, input_file="f", input_line=row + 1, text=f"t{row}") for row in (4, 0, 3, 2, 1, 5)]
    run_of(tmp_path, [*first, *later], rows=6)
    view, schema = view_run(tmp_path), results.result_schema(pa.schema([]))

    assert results.tell_all(view, 6)
    for stop in (6, 4, 1):
        joined, alone = (
            pa.Table.from_batches(results.result_batches(view, rows, schema=schema, scratch=tmp_path), schema)
            for rows in (input_of(stop), stop)
        )
        assert alone["row"].to_pylist() == list(range(stop))
        assert alone.equals(joined)


def test_outcomes_do_not_tell_all_of_rows_without_one_and_of_rows_that_moved(tmp_path: Path):
    run_of(tmp_path, [outcome(0), outcome(2)], rows=3)
    assert results.tell_all(view_run(tmp_path), 1)
    assert not results.tell_all(view_run(tmp_path), 3)

    with open_run(tmp_path) as run:
        carried = pa.table({"row": [0, 1], "sequence": [2, 1], "code": [1, 1]})
        run.begin(Epoch(input={"new": True}, asked={}, rows=2), carried=carried)
        run.finish()
    assert not results.tell_all(view_run(tmp_path), 2)


def test_cost_is_all_that_the_item_cost_in_this_run(tmp_path: Path):
    outcomes = [
        outcome(0, status="exhausted", cost_usd=0.25),
        outcome(1, status="exhausted", cost_usd=None),
        outcome(2, status="rejected", cost_usd=None, attempts=0, error_type="bad_row"),
        outcome(0, cost_usd=0.5),
        outcome(1),
        outcome(2),
        outcome(3, cost_usd=None),
    ]
    run_of(tmp_path, outcomes, rows=4)

    assert build(tmp_path, 4)["cost_usd"].to_pylist() == [0.75, None, 1.0, None]


def test_what_an_item_cost_under_an_earlier_job_counts_too(tmp_path: Path):
    run_of(tmp_path, [outcome(0, item_id="id-1", cost_usd=0.25)], rows=1)
    with open_run(tmp_path) as run:
        run.begin(Epoch(input={}, asked={"new": True}, rows=2))
        run.append(outcome(0))
        run.append(outcome(1))
        run.finish()

    assert build(tmp_path, 2)["cost_usd"].to_pylist() == [1.0, 1.25]


def test_many_buckets_give_the_same_table_and_leave_nothing_behind(tmp_path: Path):
    rows = 50
    outcomes = [outcome((row * 7) % rows, text=f"t{row}", cost_usd=float(row)) for row in range(2 * rows)]
    run_of(tmp_path, outcomes, rows=rows, seal_every=9)
    view = view_run(tmp_path)
    whole = build(tmp_path, rows).to_pylist()

    with Join(view, tmp_path, bucket_bytes=5_000) as join:
        assert join.bucket_rows < rows / 3
        joined = [row for batch in input_of(rows) for piece in join.rows_of(batch) for row in piece.to_pylist()]

    assert [row.pop("turns") for row in joined] == [None] * rows
    assert joined == whole
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_results_follow_the_input_of_today(tmp_path: Path):
    run_of(tmp_path, [outcome(0, item_id="id-2", text="moved", request_key="k"), outcome(1, item_id="gone")], rows=2)
    with open_run(tmp_path) as run:
        keys = matching.Keys()
        keys.add(2, "id-2", "k")
        run.begin(
            Epoch(input={}, asked={}, rows=3),
            carried=matching.match(keys.table(), matching.outcome_index(run.view())).carried,
        )
        run.append(outcome(0, text="new"))
        run.append(outcome(1, text="new"))
        run.finish()

    assert build(tmp_path, 3)["text"].to_pylist() == ["new", "new", "moved"]


def test_an_empty_input_gives_an_empty_table_with_every_column(tmp_path: Path):
    run_of(tmp_path, [], rows=0)

    table = build(tmp_path, 0)

    assert table.num_rows == 0
    assert table.schema.names == [*OUTCOME.names, *KEEP.names]


def test_our_own_results_are_replaced(tmp_path: Path):
    run_of(tmp_path, [outcome(0)], rows=1)
    build(tmp_path, 1)

    assert build(tmp_path, 1).num_rows == 1


@pytest.mark.parametrize("kind", ["text", "parquet", "symlink", "directory"])
def test_what_is_not_ours_is_not_overwritten(tmp_path: Path, kind: str):
    run_of(tmp_path, [outcome(0)], rows=1)
    target = tmp_path / "results.parquet"
    match kind:
        case "text":
            target.write_bytes(b"notes")
        case "parquet":
            pq.write_table(pa.table({"a": [1]}), target)
        case "symlink":
            build(tmp_path, 1)
            target.rename(tmp_path / "elsewhere")
            target.symlink_to(tmp_path / "elsewhere")
        case "directory":
            target.mkdir()

    with pytest.raises(StoreError, match=r"results\.parquet (is not a regular file|was not written by this run)"):
        build(tmp_path, 1)

    assert target.is_symlink() == (kind == "symlink")
    assert not (tmp_path / ".results.parquet.partial").exists()


def test_a_file_of_somebody_else_is_overwritten_when_told(tmp_path: Path):
    run_of(tmp_path, [outcome(0)], rows=1)
    (tmp_path / "results.parquet").write_bytes(b"notes")

    assert build(tmp_path, 1, overwrite=True).num_rows == 1


def test_a_failure_midway_leaves_the_old_results(tmp_path: Path):
    run_of(tmp_path, [outcome(0)], rows=1)
    build(tmp_path, 1)
    before = (tmp_path / "results.parquet").read_bytes()

    def failing() -> Iterator[pa.RecordBatch]:
        yield from input_of(1)
        raise OSError(5, "Input/output error", "input.jsonl")

    with pytest.raises(StoreError, match=r"input\.jsonl: input/output error"):
        results.build_results(
            view_run(tmp_path), failing(), tmp_path / "results.parquet", schema=results.result_schema(KEEP), metadata={}
        )

    assert (tmp_path / "results.parquet").read_bytes() == before
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_results_say_what_they_were_built_from(tmp_path: Path):
    run_of(tmp_path, [outcome(0)], rows=1)
    build(tmp_path, 1)
    target = tmp_path / "results.parquet"

    assert results.results_match(target, {"job": "nightly"})
    assert not results.results_match(target, {"job": "nightly", "rows": 1})
    assert not results.results_match(tmp_path / "missing", {"job": "nightly"})
