"""Shard runs as one table: whole, in order, bounded, and refused when they do not fit together."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner.assemble import Place, merge_runs
from batchrunner.errors import JobError, RunError, RunLocked, StoreError
from batchrunner.records import Outcome
from batchrunner.schema import OUTCOME
from batchrunner.store import build_results, merging, open_run, read_manifest, result_schema, write_manifest
from batchrunner.store.run import Epoch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

KEEP = pa.schema([("subject", pa.string())])
PLACE = [("row", pa.int64()), ("item_id", pa.string()), ("input_file", pa.string()), ("input_line", pa.int64())]
INPUT = {"fingerprint": {"files": [{"path": "rows.jsonl", "size": 9, "mtime_ns": 1, "hash": "x"}]}}
JOB: dict[str, Any] = {
    "name": "nightly",
    "params": {},
    "input": {"path": "rows.jsonl"},
    "output": {"keep": ["subject"], "mode": "0640"},
}


def merge(named: Sequence[Path], *, out: Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    places = [Place(directory=directory) for directory in named]
    return merge_runs(places, out=str(out) if out else None, overwrite=overwrite)


def input_of(rows: Sequence[int], keep: pa.Schema) -> Iterator[pa.RecordBatch]:
    lines = [
        {"row": row, "item_id": f"id-{row}", "input_file": "rows.jsonl", "input_line": row + 1, keep.names[0]: "s"}
        for row in rows
    ]
    yield pa.RecordBatch.from_pylist(lines, schema=pa.schema([*PLACE, *keep]))


def shard(
    directory: Path,
    rows: Sequence[int],
    *,
    place: tuple[int, int],
    total: int,
    keep: pa.Schema = KEEP,
    text: str = "",
    commit: Mapping[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """A shard's finished run, as `run --shard` leaves it."""
    index, shards = place
    known: dict[str, Any] = {"input": INPUT, "asked": {"request.prompt": "p"}, "rows": total, **(commit or {})}
    with open_run(directory) as run:
        run.begin(Epoch(**known))
        for row in rows:
            status = "rejected" if row == 4 else "succeeded"
            run.append(
                replace(
                    Outcome(item_id=f"id-{row}", row=row, input_file="f", input_line=row + 1, status=status),
                    text=f"t{row}{text}",
                    error_type="content_filter" if row == 4 else None,
                    request_key=f"key-{row}",
                )
            )
        run.finish()
        marks = {"job": "nightly", "epoch": run.commit.epoch, "sequence": run.commit.folded_through}
        build_results(
            run.view(), input_of(rows, keep), directory / "results.parquet", schema=result_schema(keep), metadata=marks
        )
    items = {"total": len(rows), "succeeded": len(rows) - (4 in rows), "rejected": int(4 in rows), "exhausted": 0}
    failed = {"content_filter": {"count": 1, "first_id": "id-4", "first_row": 4}} if 4 in rows else {}
    facts = {
        "name": "nightly",
        "run": str(directory),
        "state": "finished",
        "items": {**items, "unfinished": 0, "length": 0},
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cost_usd": 0.5,
        "possibly_billed": 0,
        "failed_by_type": failed,
        "labels": {},
        "job": JOB,
        "selection": {"index": index, "shards": shards, "stop": None},
        **manifest,
    }
    write_manifest(directory / "run.json", facts)
    return directory


def two_shards(directory: Path, **changes: Any) -> Path:
    """Rows 0 to 9 in two shards, the second as `changes` say."""
    shard(directory / "shard-0-of-2", [0, 1, 4, 5, 9], place=(0, 2), total=10)
    second: dict[str, Any] = {"rows": [2, 3, 6, 7, 8], "place": (1, 2), "total": 10, **changes}
    shard(directory / "shard-1-of-2", **second)
    return directory


def refused(*named: Path, **options: Any) -> str:
    with pytest.raises(RunError) as error:
        merge(named, **options)
    assert error.value.exit_code == 10
    assert not (named[0] / "results.parquet").exists() or len(named) > 1
    return str(error.value)


def test_all_rows_in_input_order_with_the_books_added_up(tmp_path: Path):
    summary = merge([two_shards(tmp_path)])

    table = pq.read_table(summary["results"])
    assert summary["results"] == str(tmp_path / "results.parquet")
    assert table["row"].to_pylist() == list(range(10))
    assert table["text"].to_pylist() == [f"t{row}" for row in range(10)]
    assert table.schema.names == [*OUTCOME.names, "subject"]
    assert summary["items"] == {
        "total": 10, "succeeded": 9, "rejected": 1, "exhausted": 0, "unfinished": 0, "length": 0,
    }  # fmt: skip
    assert (summary["cost_usd"], summary["prompt_tokens"], summary["shards"], summary["rows"]) == (1.0, 20, 2, 10)
    assert summary["failed_by_type"]["content_filter"]["first_row"] == 4
    assert (tmp_path / "results.parquet").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.parquet", "shard-0-of-2", "shard-1-of-2"]


@pytest.mark.parametrize("held_bytes", [1, 3000, 10**9])
def test_memory_is_bounded_and_the_table_the_same(tmp_path: Path, held_bytes: int, monkeypatch):
    monkeypatch.setattr(merging, "HELD_BYTES", held_bytes)
    for index in range(5):  # The last one is empty, as shards of a small input are.
        rows = [row for row in range(40) if row % 4 == index]
        shard(tmp_path / f"shard-{index}-of-5", rows, place=(index, 5), total=40)

    merge([tmp_path])

    assert pq.read_table(tmp_path / "results.parquet")["text"].to_pylist() == [f"t{row}" for row in range(40)]


def test_an_input_without_rows_is_an_empty_table(tmp_path: Path):
    for index in range(2):
        shard(tmp_path / f"shard-{index}-of-2", [], place=(index, 2), total=0)

    assert merge([tmp_path])["rows"] == 0
    assert pq.read_table(tmp_path / "results.parquet").schema.names == [*OUTCOME.names, "subject"]


def test_a_second_merge_replaces_the_first_and_nothing_foreign(tmp_path: Path):
    target = tmp_path / "results.parquet"
    merge([two_shards(tmp_path)])
    first = target.stat().st_ino
    merge([tmp_path])
    assert target.stat().st_ino == first  # It says the same already.

    shard(tmp_path / "shard-1-of-2", [2, 3, 6, 7, 8], place=(1, 2), total=10, text=" again")
    merge([tmp_path])
    assert pq.read_table(target)["text"][2].as_py() == "t2 again"

    target.write_bytes(b"mine")
    with pytest.raises(StoreError, match="--overwrite"):
        merge([tmp_path])
    assert target.read_bytes() == b"mine"
    merge([tmp_path], overwrite=True)
    assert pq.read_table(target).num_rows == 10


def test_shards_from_anywhere_go_into_a_file_of_ones_choice(tmp_path: Path):
    one = shard(tmp_path / "a" / "mine", [0, 2], place=(0, 2), total=3)
    other = shard(tmp_path / "b" / "theirs", [1], place=(1, 2), total=3)

    with pytest.raises(JobError, match="--out"):
        merge([one, other])
    assert merge([other, one], out=tmp_path / "new" / "all.parquet")["rows"] == 3
    assert pq.read_table(tmp_path / "new" / "all.parquet")["row"].to_pylist() == [0, 1, 2]
    assert "is a shard's own" in refused(one, other, out=one / "results.parquet", overwrite=True)


def test_a_job_of_another_name_or_day_keeps_its_file(tmp_path: Path):
    out = tmp_path / "all.parquet"
    merge([two_shards(tmp_path / "today")], out=out)
    for index, rows in enumerate(([0], [1])):
        job = {**JOB, "params": {"ds": "2026-11-21"}}
        shard(tmp_path / "next" / f"shard-{index}-of-2", rows, place=(index, 2), total=2, job=job)

    with pytest.raises(StoreError, match="--overwrite"):
        merge([tmp_path / "next"], out=out)
    assert pq.read_table(out).num_rows == 10


def test_what_is_missing_is_named(tmp_path: Path):
    shard(tmp_path / "shard-1-of-3", [0], place=(1, 3), total=1)

    assert refused(tmp_path) == (
        f"{tmp_path}: 2 of 3 shards missing: 0/3, 2/3; run it with --shard 0/3, or name its directory too"
    )
    assert "no shard run" in refused(tmp_path / "elsewhere")


def test_a_simulated_run_is_pointed_to(tmp_path: Path):
    two_shards(tmp_path / "nightly.simulated")

    assert f"did you mean {tmp_path / 'nightly.simulated'}?" in refused(tmp_path / "nightly")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": [2, 3, 5, 6, 7, 8]}, "row 5 is there twice, in {0}/shard-0-of-2/results.parquet and {0}/shard-1"),
        ({"rows": [2, 6, 7]}, "row 3 is in no shard, of 10 rows of the input; give each shard's command again"),
        ({"rows": [2, 3, 6]}, "rows 7 to 8 are in no shard"),
        ({"selection": {"index": 1, "shards": 2, "stop": 4}, "rows": [2, 3]}, "--limit kept shards 1/2 from all"),
        ({"place": (1, 3)}, "another number of shards"),
        ({"place": (0, 2)}, "shard 0 is there twice: {0}/shard-0-of-2, {0}/shard-1-of-2; name one of them"),
        ({"job": {**JOB, "name": "other"}}, "another job name;"),
        ({"job": {**JOB, "params": {"ds": "x"}}}, "another params;"),
        ({"commit": {"asked": {}}}, "another question (what the job asks);"),
        ({"commit": {"input": {"fingerprint": {"files": []}}}}, "another input;"),
        ({"total": 11}, "another input;"),
        ({"keep": pa.schema([("topic", pa.string())])}, "subject: string, topic: string); give each shard's command"),
        ({"selection": {"index": 0, "shards": 1, "stop": None}}, "a whole run, not a shard"),
        ({"state": "running"}, "not finished (killed, 0 items unfinished); give its command again"),
        ({"state": "drained"}, "not finished (drained"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], words: str):
    assert words.format(tmp_path) in refused(two_shards(tmp_path, **changes))
    assert not list(tmp_path.glob(".results*"))


def test_every_shard_that_has_not_finished_is_named(tmp_path: Path):
    for index in range(2):
        shard(tmp_path / f"shard-{index}-of-2", [index], place=(index, 2), total=2, state="stopped")

    assert refused(tmp_path).count("not finished (stopped") == 2


def test_shards_of_two_counts_in_one_directory(tmp_path: Path):
    two_shards(tmp_path)
    shard(tmp_path / "shard-0-of-3", [0], place=(0, 3), total=1)

    assert "shards of different counts (2 of 2 and 1 of 3)" in refused(tmp_path)
    assert merge([tmp_path / f"shard-{index}-of-2" for index in range(2)])["rows"] == 10


def test_a_run_that_was_put_aside_is_no_shard(tmp_path: Path):
    two_shards(tmp_path)
    (tmp_path / "shard-0-of-2").rename(tmp_path / "shard-0-of-2.1")
    shard(tmp_path / "shard-0-of-2", [0, 1, 4, 5, 9], place=(0, 2), total=10, text=" new")

    merge([tmp_path])

    assert pq.read_table(tmp_path / "results.parquet")["text"][0].as_py() == "t0 new"


def test_results_have_to_be_those_of_the_run(tmp_path: Path):
    results = two_shards(tmp_path) / "shard-1-of-2" / "results.parquet"
    whole = results.read_bytes()

    results.write_bytes((tmp_path / "shard-0-of-2" / "results.parquet").read_bytes())
    assert f"{results}: not written by its run" in refused(tmp_path)
    results.unlink()
    assert f"{results}: missing; give the shard's command again" in refused(tmp_path)
    results.write_bytes(whole)
    with open_run(results.parent) as run:
        run.begin()
        run.append(Outcome(item_id="id-2", row=2, input_file="f", input_line=3, status="rejected", request_key="k"))
        run.finish()
    assert f"{results}: older than the outcomes of its run" in refused(tmp_path)


def test_a_damaged_page_is_found_and_leaves_nothing_behind(tmp_path: Path):
    results = two_shards(tmp_path) / "shard-1-of-2" / "results.parquet"
    content = bytearray(results.read_bytes())
    content[40] ^= 0xFF
    results.write_bytes(content)

    assert str(results) in refused(tmp_path)
    assert not list(tmp_path.glob(".results*"))


def test_a_live_shard_is_waited_for(tmp_path: Path):
    with open_run(two_shards(tmp_path) / "shard-1-of-2"), pytest.raises(RunLocked, match="still at work") as error:
        merge([tmp_path])

    assert error.value.exit_code == 11


def test_of_two_merges_at_once_one_is_told(tmp_path: Path):
    two_shards(tmp_path)
    with merging._sole_writer(tmp_path / "results.parquet"), pytest.raises(RunLocked):
        merge([tmp_path])

    merge([tmp_path])
    assert os.listdir(tmp_path).count("results.parquet") == 1  # noqa: PTH208


def test_shards_from_standard_input_have_copies_of_their_own(tmp_path: Path):
    job = {**JOB, "input": {"path": "-"}}
    for index, rows in enumerate(([0], [1])):
        copy = {"path": f"{index}/stdin.jsonl", "size": 9, "mtime_ns": index, "hash": "x"}
        known = {"input": {"fingerprint": {"files": [copy]}}}
        shard(tmp_path / f"shard-{index}-of-2", rows, place=(index, 2), total=2, job=job, commit=known)

    assert merge([tmp_path])["rows"] == 2


def test_an_unknown_cost_stays_unknown(tmp_path: Path):
    assert merge([two_shards(tmp_path, cost_usd=None)])["cost_usd"] is None
    assert read_manifest(tmp_path / "shard-0-of-2" / "run.json")
