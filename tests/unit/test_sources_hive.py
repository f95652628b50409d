"""Tables in `key=value` folders: which files are theirs, and what their rows are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.records import Item
    from batchrunner.sources import Checked, Input

FORMATS = ("jsonl", "parquet", "csv")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        pl.DataFrame(rows).write_csv(path)


def table(base: Path, kind: str, *folders: str, **more: Any) -> None:
    for number, folder in enumerate(folders):
        write(base / "t" / folder / f"part-0.{kind}", [{"id": f"{number}-{row}", "n": row, **more} for row in range(3)])


def opened(base: Path, pattern: str = "t", **options: Any) -> tuple[Input, Checked]:
    source = sources.open_input(pattern, base=base, **options)
    checked = sources.check(source)
    source.learn(checked)
    return source, checked


def items(base: Path, pattern: str = "t", **options: Any) -> list[Item]:
    return list(opened(base, pattern, **options)[0].rows())


@pytest.mark.parametrize("kind", FORMATS)
def test_folders_are_columns_of_declared_types(tmp_path, kind):
    table(tmp_path, kind, "ds=2026-11-20/hour=7", "ds=2026-11-20/hour=12", "ds=2026-11-21/hour=0")
    (tmp_path / "t/_SUCCESS").touch()
    (tmp_path / f"t/ds=2026-11-20/hour=7/.part-0.{kind}.crc").touch()
    (tmp_path / "t/_temporary/ds=1").mkdir(parents=True)
    (tmp_path / f"t/_temporary/ds=1/x.{kind}").touch()

    source, checked = opened(tmp_path)

    # In the order of their names, as any glob gives them.
    rows = list(source.rows())
    assert [row.columns["hour"] for row in rows] == [12] * 3 + [7] * 3 + [0] * 3
    assert {row.columns["ds"] for row in rows} == {"2026-11-20", "2026-11-21"}
    assert [row.row for row in rows] == [*range(9)]
    assert checked.columns["ds"] == "string"
    assert checked.columns["hour"] == "int64"
    assert rows[0].file == f"t/ds=2026-11-20/hour=12/part-0.{kind}"
    kept = pa.Table.from_batches(sources.result_batches_input(source, checked, ["hour", "n", "ds"], OUTCOME.names))
    assert kept.select(["hour", "n", "ds"]).to_pylist()[-1] == {"hour": 0, "n": 2, "ds": "2026-11-21"}
    assert [kept.schema.field(name).type for name in ("hour", "ds")] == [pa.int64(), pa.string()]


def test_values_are_decoded_and_may_be_null(tmp_path):
    table(tmp_path, "jsonl", "who=a%20b%2Fc", "who=__HIVE_DEFAULT_PARTITION__", "who=007")

    assert [item.columns["who"] for item in items(tmp_path)[::3]] == ["007", None, "a b/c"]


@pytest.mark.parametrize(("values", "kind"), [(("1", "-20"), "int64"), (("1", "01"), "string"), (("1", "x"), "string")])
def test_a_key_is_a_number_where_all_its_values_are(tmp_path, values, kind):
    table(tmp_path, "jsonl", *(f"k={value}" for value in values))

    assert opened(tmp_path)[1].columns["k"] == kind


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("t/ds=*/*/*.jsonl", ["ds", "hour"]),
        ("t/ds=2026-11-20/*/*.jsonl", ["hour"]),
        ("t/**/*.jsonl", ["ds", "hour"]),
        ("t/ds=2026-11-20", ["hour"]),
        ("t/ds=2026-*", ["ds", "hour"]),
        ("t/ds=2026-11-20/hour=7", []),
        ("t/ds=2026-11-20/hour=*", ["hour"]),
        ("t/ds=2026-11-20/hour=7/part-0.jsonl", []),
    ],
)
def test_folders_that_a_pattern_spells_out_are_no_columns(tmp_path, pattern, keys):
    table(tmp_path, "jsonl", "ds=2026-11-20/hour=7")

    assert [name for name in items(tmp_path, pattern)[0].columns if name in ("ds", "hour")] == keys


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_without_ids_are_told_apart_by_their_folders(tmp_path, kind):
    for folder in ("k=1", "k=2"):
        write(tmp_path / "t" / folder / f"a.{kind}", [{"n": 1}, {"n": 1}, {"n": 2}])

    ids = [item.item_id for item in items(tmp_path)]

    assert len(set(ids)) == 6
    assert [each.endswith("-2") for each in ids] == [False, True, False] * 2


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_that_says_something_else_than_its_folder_is_a_bad_row(tmp_path, kind):
    write(tmp_path / "t/k=1" / f"a.{kind}", [{"id": "x", "k": 1}, {"id": "y", "k": 2}])

    good, bad = items(tmp_path)

    assert good.columns["k"] == 1
    assert good.fault is None
    assert bad.fault is not None
    assert "but its folder says k=1" in bad.fault


def test_files_in_folders_of_other_keys_are_refused(tmp_path):
    table(tmp_path, "jsonl", "a=1", "a=1/b=2")

    with pytest.raises(JobError, match=r"expected a file in folders a=\.\.\., like .*, got a=\.\.\./b=\.\.\."):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("folder", "said"),
    [("k=1/k=2", "two of its folders have the same key"), ("id=1", "the key of a folder, 'id', names no items")],
)
def test_keys_that_mean_nothing_are_refused(tmp_path, folder, said):
    table(tmp_path, "jsonl", folder)

    with pytest.raises(JobError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("folder", "value"), [("f=true", True), ("m=01", 1), ("t=2026-11-20 00%3A00", "2026-11-20T00:00")]
)
def test_the_same_value_may_be_spelled_otherwise_in_a_row(tmp_path, folder, value):
    write(tmp_path / "t" / folder / "a.jsonl", [{"id": "x", folder.partition("=")[0]: value}])

    assert items(tmp_path)[0].fault is None


def test_no_file_of_a_table_is_left_out_without_a_word(tmp_path):
    table(tmp_path, "jsonl", "ds=1")
    write(tmp_path / "elsewhere/a.jsonl", [{"id": "linked"}])
    (tmp_path / "t/ds=2").symlink_to("../elsewhere")
    (tmp_path / "t/ds=2/circle").symlink_to("../t")

    assert [item.item_id for item in items(tmp_path)][-1] == "linked"
    write(tmp_path / "t/archive/old.jsonl", [{"id": "stray"}])
    with pytest.raises(JobError, match=r"t/archive/old\.jsonl: in none of the key=value folders of t"):
        opened(tmp_path)


def test_other_folders_and_patterns_are_another_input(tmp_path):
    """What was checked of one must not pass for the other: its columns are not the same."""
    table(tmp_path, "jsonl", "ds=1")
    prints = [json.dumps(opened(tmp_path, each)[0].fingerprint()) for each in ("t/*/*.jsonl", "t/ds=1/part-0.jsonl")]
    before = opened(tmp_path, "t", only="ds = 1")[0].fingerprint()
    table(tmp_path, "jsonl", "ds=1", "ds=x")
    after = sources.open_input("t", base=tmp_path, only="ds = '1'").fingerprint()

    assert prints[0] != prints[1]
    assert (before["partitions"], after["partitions"]) == ({"ds": "int64"}, {"ds": "string"})


def test_bytes_that_are_no_text_stay_as_they_are_written(tmp_path):
    table(tmp_path, "jsonl", "k=%FE", "k=%FF")

    assert {item.columns["k"] for item in items(tmp_path)} == {"%FE", "%FF"}


def test_a_new_folder_is_more_of_the_same_input(tmp_path):
    table(tmp_path, "jsonl", "ds=1")
    before = opened(tmp_path)[0].fingerprint()
    write(tmp_path / "t/ds=2/part-0.jsonl", [{"id": "new"}])

    source, _ = opened(tmp_path)

    assert [item.item_id for item in source.rows()] == ["0-0", "0-1", "0-2", "new"]
    assert source.fingerprint() != before
    assert source.fingerprint()["files"][0] == before["files"][0]


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ("k = 2", [2]),
        ("k > 1 AND n IS NULL", [2, 3]),
        ("n >= 0 AND (k = 1 OR k = 3)", [1, 3]),
        ("k = 1 OR n = 1", [1, 2, 3]),
        ("NOT k = 1", [2, 3]),
        ("k IS NULL", []),
        ("k = 9 AND nothing = 1", []),
    ],
)
def test_folders_of_which_no_row_can_match_are_not_opened(tmp_path, only, left):
    table(tmp_path, "parquet", "k=1", "k=2", "k=3")
    for key in {1, 2, 3} - {*left}:
        (tmp_path / f"t/k={key}/part-0.parquet").write_bytes(b"junk")

    source, checked = opened(tmp_path, only=only)

    assert [file.partition["k"] for file in source.parts] == [str(key) for key in left]
    assert {item.columns["k"] for item in source.rows()} <= {*left}
    assert checked.looked_at == 3 * len(left)
    assert source.first_place.endswith("t/k=1/part-0.parquet")
