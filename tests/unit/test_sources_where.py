"""Rows chosen by an expression: numbered as if there were no others, whatever the format."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.records import Item
    from batchrunner.sources import Checked, Input

FORMATS = ("jsonl", "parquet", "csv")
ROWS = [{"id": f"r{n}", "n": n, "kind": "ab"[n % 2], "maybe": n if n > 500 else None} for n in range(700)]


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS, name: str = "rows") -> None:
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, row_group_size=64)
    else:
        pl.DataFrame(rows, infer_schema_length=None).write_csv(path)


def opened(folder: Path, kind: str, only: str | None, **options: Any) -> tuple[Input, Checked]:
    source = sources.open_input(f"*.{kind}", base=folder, only=only)
    checked = sources.check(source, **options)
    source.learn(checked)
    return source, checked


def facts(item: Item) -> tuple[Any, ...]:
    return item.item_id, item.row, item.line, dict(item.columns), item.fault


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("only", "matches"),
    [
        ("n >= 100 AND n < 110", lambda row: 100 <= row["n"] < 110),
        ("kind = 'b'", lambda row: row["kind"] == "b"),
        ("maybe > 600", lambda row: (row["maybe"] or 0) > 600),
        ("maybe IS NULL", lambda row: row["maybe"] is None),
        ("n < 0", lambda row: False),
        ("n % 100 = 7 OR kind LIKE 'x%'", lambda row: row["n"] % 100 == 7),
        ("true", lambda row: True),
    ],
)
def test_the_matching_rows_are_the_input(tmp_path, kind, only, matches):
    write(tmp_path, kind, ROWS[:650], "one")
    write(tmp_path, kind, ROWS[650:], "two")

    source, checked = opened(tmp_path, kind, only)
    found = list(source.rows())

    wanted = [row for row in ROWS if matches(row)]
    assert [item.item_id for item in found] == [row["id"] for row in wanted]
    assert [item.row for item in found] == [*range(len(wanted))]
    assert checked.rows == len(wanted)
    # Numbers are numbers whatever rows are left, and lines stay those of the file.
    assert checked.columns["n"] == "int64"
    assert all(item.columns["n"] == int(item.item_id[1:]) for item in found)
    if kind != "parquet":
        header = int(kind == "csv")
        assert all(item.line == int(item.item_id[1:]) % 650 + 1 + header for item in found)


@pytest.mark.parametrize("kind", FORMATS)
@given(mask=st.lists(st.booleans(), min_size=350, max_size=350), stop=st.integers(0, 360))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_are_skipped_change_nothing_for_the_others(tmp_path, kind, mask, stop):
    if not (tmp_path / f"rows.{kind}").exists():
        write(tmp_path, kind)
    source, _ = opened(tmp_path, kind, "kind = 'b'")
    whole = list(source.rows())
    skip = bytes(mask)

    found = list(source.rows(skip, stop))

    assert [*map(facts, found)] == [facts(item) for item in whole if item.row < stop and not skip[item.row]]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_results_agree_with_the_rows(tmp_path, kind):
    write(tmp_path, kind)
    source, checked = opened(tmp_path, kind, "n >= 300 AND kind = 'a'")

    batches = sources.result_batches_input(source, checked, ["kind", "maybe"], OUTCOME.names, shard=(0, 2))
    table = pa.Table.from_batches(batches)

    mine = [item for item in source.rows() if sources.shard_of(item.item_id, 2) == 0]
    assert table["item_id"].to_pylist() == [item.item_id for item in mine]
    assert table["row"].to_pylist() == [item.row for item in mine]
    assert table["maybe"].to_pylist() == [item.columns["maybe"] for item in mine]
    assert set(table["kind"].to_pylist()) == {"a"}


@pytest.mark.parametrize("kind", FORMATS)
def test_shards_and_repeats_are_counted_of_what_is_left(tmp_path, kind):
    write(tmp_path, kind, [{"n": n % 3} for n in range(30)])

    counts = [opened(tmp_path, kind, "n < 2", shard=(index, 2))[1].shard_rows for index in range(2)]

    source, checked = opened(tmp_path, kind, "n < 2")
    ids = [item.item_id for item in source.rows()]
    assert len(set(ids)) == len(ids) == 20
    assert len(checked.repeats) == 18
    assert counts == [sum(sources.shard_of(each, 2) == index for each in ids) for index in range(2)]


def test_a_row_that_cannot_be_read_is_not_judged(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "n": 1}\n{broken\n{"id": 2, "n": 5}\n{"id": 3}\n')

    source, checked = opened(tmp_path, "jsonl", "n > 3")

    assert [(item.line, item.fault is None) for item in source.rows()] == [(2, False), (3, True)]
    assert (checked.rows, checked.faulty) == (2, 1)


@pytest.mark.parametrize("odd", [0, [1], {"a": 1}])
def test_a_column_of_several_kinds_is_refused(tmp_path, odd):
    """One odd row must not turn what a condition means for all others."""
    write(tmp_path, "jsonl", [{"id": 1, "v": "x"}, {"id": 2, "v": odd}])

    with pytest.raises(JobError, match="column 'v' holds lists, objects, or values of several kinds"):
        opened(tmp_path, "jsonl", "v <> 'x'")


def test_every_pass_takes_the_same_rows_whatever_columns_it_reads(tmp_path):
    """A value that cannot be read is a fault of its row only where its column is read."""
    times = pa.array([0, 400_000_000_000_000_000, *[0] * 6], pa.timestamp("us"))
    status = ["open", "closed", *["open"] * 5, "closed"]
    pq.write_table(pa.table({"id": [f"a{n}" for n in range(8)], "status": status, "t": times}), tmp_path / "p.parquet")
    source, checked = opened(tmp_path, "parquet", "status = 'open'")

    bare = pa.Table.from_batches(sources.result_batches_input(source, checked, ["status"], OUTCOME.names))

    wanted = ["a0", *(f"a{n}" for n in range(2, 7))]
    assert bare["item_id"].to_pylist() == [item.item_id for item in source.rows()] == wanted
    assert bare["row"].to_pylist() == [item.row for item in source.rows()] == [*range(len(wanted))]


def test_the_rows_own_case_id_is_judged_below_a_matrix(tmp_path):
    write(tmp_path, "jsonl", [{"case_id": n} for n in range(5)])
    rows = sources.open_input("rows.jsonl", base=tmp_path, id_column="case_id", only="case_id >= 3")
    source = sources.Cases(rows, sources.Ways(["a"], 2))
    source.learn(sources.check(source))

    assert [item.item_id for item in source.rows()] == ["3/a/1", "3/a/2", "4/a/1", "4/a/2"]


def test_a_matrix_is_of_the_rows_that_are_left(tmp_path):
    write(tmp_path, "jsonl")
    source = sources.Cases(sources.open_input("rows.jsonl", base=tmp_path, only="n < 3"), sources.Ways(["a", "b"], 1))
    source.learn(sources.check(source))

    assert [item.item_id for item in source.rows()] == [f"r{n}/{way}/1" for n in range(3) for way in "ab"]


def test_the_expression_is_part_of_which_input_it_is(tmp_path):
    write(tmp_path, "jsonl")
    prints = [opened(tmp_path, "jsonl", only)[0].fingerprint() for only in (None, "n < 5", "n < 6", "n < 5")]

    assert prints[1] == prints[3]
    assert len({json.dumps(each) for each in prints}) == 3
    assert "where" not in prints[0]


def test_an_empty_input_has_no_columns_to_miss(tmp_path):
    (tmp_path / "rows.jsonl").touch()

    assert opened(tmp_path, "jsonl", "n < 5")[1].rows == 0


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("knd = 'a'", "input.where: no column 'knd'; did you mean 'kind'?"),
        ("kind = ", 'input.where: "kind = ": '),
        ("n + 1", "is Int64; expected a condition"),
        ("n < 'x'", "input.where: \"n < 'x'\": "),
        ("n > CURRENT_DATE", "CURRENT_DATE would choose other rows each time; give the day as a parameter"),
    ],
)
def test_what_cannot_be_judged_is_said(tmp_path, kind, only, said):
    write(tmp_path, kind)

    with pytest.raises(JobError, match=re.escape(said).replace('\\"', "['\"]").replace('"', "['\"]")):
        opened(tmp_path, kind, only)


SEVERAL = (
    "columns('.*') = 5",
    "n > AVG(n)", "COUNT(*) > 1", "n = MAX(n)", "SUM(n) OVER (PARTITION BY kind) > 1", "FIRST(n) = n", "MEDIAN(n) > 1",
    "ROW_NUMBER() OVER (ORDER BY n) < 3", "LAG(n) OVER (ORDER BY n) > 1", "RANK() OVER (ORDER BY n) = 1",
    "QUANTILE_CONT(n, 0.5) > 1", "STDDEV(n) > 1", "CORR(n, n) > 1", "COUNT(DISTINCT n) > 1", "n = (SELECT 1)",
)  # fmt: skip


@pytest.mark.parametrize("only", SEVERAL)
def test_what_looks_at_several_rows_is_refused(tmp_path, only):
    """It would see one block of them, and another one the next time."""
    write(tmp_path, "jsonl")

    with pytest.raises(JobError, match=r"input\.where: "):
        opened(tmp_path, "jsonl", only)


@pytest.mark.parametrize(
    "only",
    [
        "kind = 'Len'",
        "kind IN ('Agg', 'Over')",
        "LENGTH(kind) = 1",
        "COALESCE(maybe, 1) = 1",
        "kind = 'now and today'",
        "kind = 'a' -- now()",
    ],
)
def test_what_only_sounds_like_that_is_not(tmp_path, only):
    write(tmp_path, "jsonl")
    condition = pl.sql_expr(only)

    found = opened(tmp_path, "jsonl", only)[0]

    wanted = pl.DataFrame(ROWS, infer_schema_length=None).filter(condition)["id"].to_list()
    assert [item.item_id for item in found.rows()] == wanted


@pytest.mark.parametrize("only", ["LOWER(status) = 'open'", "status LIKE 'O%'", "size > 2.5 OR status = 'Open'"])
def test_a_file_may_lack_a_column_or_hold_a_narrower_type(tmp_path, only):
    pl.DataFrame({"id": ["a", "b"], "size": [1, 2]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"id": ["c", "d"], "size": [1.5, 2.0], "status": ["Open", "shut"]}).write_parquet(
        tmp_path / "2.parquet"
    )

    assert [item.item_id for item in opened(tmp_path, "parquet", only)[0].rows()] == ["c"]
