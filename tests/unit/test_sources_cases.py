"""An input asked in several ways: who its items are, whatever its format, and that none is missed or read in vain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME
from batchrunner.sources import Cases, Checked, Ways

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.records import Item

FORMATS = ("jsonl", "parquet", "csv")
WAYS = Ways(["a", "b"], 3)


def write(folder: Path, kind: str, rows: list[dict[str, Any]], name: str = "rows") -> None:
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pl.DataFrame(rows).write_parquet(path, row_group_size=4)
    else:
        pl.DataFrame(rows).write_csv(path)


def cases(folder: Path, kind: str, ways: Ways = WAYS, **options: Any) -> Cases:
    return Cases(sources.open_input(f"*.{kind}", base=folder, **options), ways)


def checked(source: Cases, **options: Any) -> Checked:
    found = sources.check(source, **options)
    source.learn(found)
    return found


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"r{number}", "n": number} for number in range(first, first + count)]


def facts(item: Item) -> tuple[Any, ...]:
    return item.item_id, item.row, item.file, item.line, dict(item.columns), item.fault


@pytest.mark.parametrize("kind", FORMATS)
def test_items_come_case_by_case_each_way_in_turn(tmp_path, kind):
    write(tmp_path, kind, numbered(7), "one")
    write(tmp_path, kind, numbered(5, 7), "two")
    source = cases(tmp_path, kind)
    found = checked(source)

    items = list(source.rows())

    assert (found.rows, found.file_rows, found.faulty) == (72, (42, 30), 0)
    assert [item.row for item in items] == [*range(72)]
    assert [item.item_id for item in items[:7]] == [
        *(f"r0/{variant}/{time}" for variant in "ab" for time in (1, 2, 3)),
        "r1/a/1",
    ]
    assert {item.file for item in items[:42]} == {f"one.{kind}"}
    last = items[-1].columns
    assert {name: last[name] for name in ("id", "n", "case_id", "variant", "repeat")} == {
        "id": "r11", "n": 11, "case_id": "r11", "variant": "b", "repeat": 3,
    }  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
@given(mask=st.lists(st.booleans(), min_size=60, max_size=60), stop=st.integers(0, 70), more=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_items_that_are_skipped_change_nothing_for_the_others(tmp_path, kind, mask, stop, more):
    if not (tmp_path / f"rows.{kind}").exists():
        write(tmp_path, kind, numbered(10))
    source = cases(tmp_path, kind)
    checked(source)
    whole = list(source.rows())
    skip = bytes(2 if skipped else 0 for skipped in (mask if more else mask[:50]))

    found = list(source.rows(skip, stop))

    wanted = [item for item in whole if item.row < stop and not (item.row < len(skip) and skip[item.row])]
    assert [*map(facts, found)] == [*map(facts, wanted)]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_of_which_nothing_is_wanted_is_not_read(tmp_path, kind):
    write(tmp_path, kind, numbered(10))
    source = cases(tmp_path, kind)
    checked(source)
    read: list[int] = []

    class Watched:
        def blocks(self, file: Any, wanted: Any) -> Any:
            for block in type(plain).blocks(plain, file, wanted):
                read.extend(item.row for item in block.items)
                yield block

    plain = source.source
    source.source = Watched()  # type: ignore[assignment]

    assert len(list(source.rows(b"\1" * 13 + b"\0" + b"\1" * 46))) == 1
    assert read == [2]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_results_agree_with_the_items(tmp_path, kind):
    write(tmp_path, kind, numbered(9))
    source = cases(tmp_path, kind)
    found = checked(source)
    keep = [*sources.CASE_COLUMNS, "n"]

    batches = sources.result_batches_input(source, found, keep, OUTCOME.names, shard=(1, 2), stop=50)
    table = pa.Table.from_batches(batches)

    items = [item for item in source.rows(stop=50) if sources.shard_of(item.item_id, 2) == 1]
    assert table["item_id"].to_pylist() == [item.item_id for item in items]
    for name in keep:
        assert table[name].to_pylist() == [item.columns[name] for item in items]
    assert [str(table.schema.field(name).type) for name in sources.CASE_COLUMNS] == ["string", "string", "int64"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_pass_counts_the_items_of_a_shard(tmp_path, kind):
    write(tmp_path, kind, [{"n": 1}, {"n": 1}, {"n": 2}])
    source = cases(tmp_path, kind)

    counts = [checked(source, shard=(index, 3)).shard_rows for index in range(3)]

    ids = [item.item_id for item in source.rows()]
    assert len(set(ids)) == 18
    assert counts == [sum(sources.shard_of(each, 3) == index for each in ids) for index in range(3)]


def test_a_row_that_cannot_be_read_is_a_faulty_item_each_way(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "a"}\n{broken\n')
    source = cases(tmp_path, "jsonl")
    found = checked(source)

    items = list(source.rows())[6:]

    assert (found.rows, found.faulty) == (12, 6)
    assert all(item.fault and item.line == 2 for item in items)
    assert [item.columns["variant"] for item in items] == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize("kind", FORMATS)
def test_case_id_may_be_the_rows_own_id(tmp_path, kind):
    write(tmp_path, kind, [{"case_id": 17, "n": 1}])
    source = cases(tmp_path, kind, id_column="case_id")
    found = checked(source)

    assert [item.columns["case_id"] for item in source.rows()] == ["17"] * 6
    table = pa.Table.from_batches(sources.result_batches_input(source, found, ["case_id"], OUTCOME.names))
    assert table["case_id"].to_pylist() == ["17"] * 6


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_of_another_matrix_get_another_name(tmp_path, kind):
    """A judge asks several times of the results of a matrix."""
    write(tmp_path, kind, [{"item_id": "q/v/1", "case_id": "q", "variant": "v", "repeat": 1, "text": "t"}])
    source = cases(tmp_path, kind, id_column="item_id")
    found = checked(source)
    source.learn(Checked.from_json(json.loads(json.dumps(found.to_json()))))

    items = list(source.rows())
    kept = [*sources.CASE_COLUMNS, *(f"input_{name}" for name in sources.CASE_COLUMNS)]
    table = pa.Table.from_batches(sources.result_batches_input(source, found, kept, OUTCOME.names))

    assert [item.item_id for item in items][:2] == ["q/v/1/a/1", "q/v/1/a/2"]
    assert {name: items[5].columns[name] for name in kept} == {
        "case_id": "q/v/1", "variant": "b", "repeat": 3, "input_case_id": "q", "input_variant": "v", "input_repeat": 1,
    }  # fmt: skip
    assert table.select(kept).to_pylist() == [{name: item.columns[name] for name in kept} for item in items]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_name_that_is_kept_for_these_is_refused(tmp_path, kind):
    write(tmp_path, kind, [{"id": 1, "input_variant": 1}])

    with pytest.raises(JobError, match="has a column 'input_variant'"):
        sources.check(cases(tmp_path, kind))


def test_what_was_found_survives_being_remembered(tmp_path):
    write(tmp_path, "parquet", numbered(3))
    source = cases(tmp_path, "parquet")
    found = checked(source)

    source.learn(Checked.from_json(json.loads(json.dumps(found.to_json()))))

    assert len(list(source.rows())) == 18
    assert source.fingerprint() != cases(tmp_path, "parquet", Ways(["a", "b"], 2)).fingerprint()
    assert source.fingerprint() == cases(tmp_path, "parquet").fingerprint()
