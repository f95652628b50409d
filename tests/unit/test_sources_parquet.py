"""Parquet: every Arrow type as JSON has it, schemas over several files, row groups that are not read."""

from __future__ import annotations

import datetime
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts.source_contract import SourceContract

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchrunner.sources import Input

UTC = datetime.UTC
NOON = datetime.datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC).replace(tzinfo=None)


def opened(directory: Path, *tables: pa.Table, id_column: str | None = None, **options: Any) -> Input:
    for number, table in enumerate(tables):
        pq.write_table(table, directory / f"{number}.parquet", **options)
    source = sources.open_input("*.parquet", base=directory, id_column=id_column)
    source.learn(sources.check(source))
    return source


def value(directory: Path, array: pa.Array, name: str = "c") -> Any:
    (item,) = opened(directory, pa.table({"id": ["a"], name: array})).rows()
    assert item.fault is None
    return item.columns[name]


class TestParquet(SourceContract):
    kind, has_lines = "parquet", False

    def encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), out, row_group_size=1_000)
        return out.getvalue()


@pytest.mark.parametrize(
    ("array", "plain"),
    [
        (pa.array([NOON], pa.timestamp("us")), "2026-11-20T12:00:00.250000"),
        (pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", tz="UTC")), "2026-11-20T12:00:00.250000+00:00"),
        (pa.array([1_763_640_000_000_000_123], pa.timestamp("ns")), "2025-11-20T12:00:00"),
        (pa.array([datetime.date(2026, 11, 20)]), "2026-11-20"),
        (pa.array([datetime.time(12, 30)]), "12:30:00"),
        (pa.array([datetime.timedelta(seconds=90)]), 90.0),
        (pa.array([Decimal("12.50")]), "12.50"),
        (pa.array([b"\xff\0"]), "/wA="),
        (pa.array([float("nan")]), None),
        (pa.array([float("inf")]), None),
        (pa.array([1.5], pa.float32()), 1.5),
        (pa.array([7], pa.uint8()), 7),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array(["x"], pa.large_string()), "x"),
        (pa.array([[1, None]]), [1, None]),
        (pa.array([{"a": NOON.date(), "b": None}]), {"a": "2026-11-20", "b": None}),
        (
            pa.array([[{"at": NOON}]], pa.list_(pa.struct([("at", pa.timestamp("ns"))]))),
            [{"at": "2026-11-20T12:00:00.250000"}],
        ),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), {"k": 1}),
        (pa.nulls(1), None),
    ],
)
def test_values_come_as_json_has_them(tmp_path, array, plain):
    found = value(tmp_path, array)

    assert (found, type(found)) == (plain, type(plain))


def test_null_members_of_messages_mean_that_there_is_no_such_key(tmp_path):
    messages = [
        {"role": "user", "content": "hi", "tool_calls": None, "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": None}], "name": None},
    ]

    assert value(tmp_path, pa.array([messages]), "messages") == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
    ]


def test_values_that_python_cannot_hold_are_faults_of_their_row(tmp_path):
    texts = pa.array([b"fine", b"\xff", b"fine"]).view(pa.binary()).cast(pa.binary()).view(pa.string())
    days = pa.array([0, 0, 10**7], pa.int32()).view(pa.date32())

    good, bad_text, bad_day = opened(tmp_path, pa.table({"id": ["a", "b", "c"], "text": texts, "day": days})).rows()

    assert good.fault is None
    assert str(bad_text.fault).startswith("column 'text': 'utf-8' codec")
    assert str(bad_day.fault).startswith("column 'day': ")


def test_a_row_above_the_bound_is_faulty(tmp_path):
    table = pa.table({"id": ["a", "b"], "text": ["x" * (17 << 20), "y"]})

    long, short = opened(tmp_path, table).rows()

    assert (long.fault, short.fault) == ("longer than 16 MiB", None)


def test_columns_keep_their_arrow_types(tmp_path):
    kinds = {
        "id": pa.int32(),
        "at": pa.timestamp("ns", tz="UTC"),
        "tags": pa.list_(pa.string()),
        "sum": pa.decimal128(10, 2),
        "kind": pa.dictionary(pa.int32(), pa.string()),
    }
    table = pa.table({name: pa.array([None, None] if name != "id" else [1, 2], kind) for name, kind in kinds.items()})
    source = opened(tmp_path, table)
    checked = sources.Checked.from_json(sources.check(source).to_json())

    (batch,) = sources.result_batches_input(source, checked, None, OUTCOME.names)

    assert dict(zip(batch.schema.names[4:], batch.schema.types[4:], strict=True)) == kinds
    assert checked.columns["at"] == "timestamp[ns, tz=UTC]"
    assert batch.column("item_id").to_pylist() == ["1", "2"]


def test_files_may_differ_where_their_columns_can_be_put_together(tmp_path):
    source = opened(
        tmp_path,
        pa.table({"id": ["a"], "n": pa.array([1], pa.int32()), "gap": pa.nulls(1)}),
        pa.table({"id": ["b"], "n": pa.array([2**40], pa.int64()), "gap": ["x"], "new": [True]}),
    )
    checked = sources.check(source)

    batches = list(sources.result_batches_input(source, checked, None, OUTCOME.names))

    assert checked.columns == {"id": "string", "n": "int64", "gap": "string", "new": "bool"}
    assert pa.Table.from_batches(batches).select(["n", "gap", "new"]).to_pylist() == [
        {"n": 1, "gap": None, "new": None},
        {"n": 2**40, "gap": "x", "new": True},
    ]


def test_files_whose_columns_cannot_be_put_together_are_refused(tmp_path):
    with pytest.raises(JobError, match=r"1\.parquet: its columns are not those of the files before it"):
        opened(tmp_path, pa.table({"id": ["a"], "n": [1]}), pa.table({"id": ["b"], "n": ["one"]}))


@pytest.mark.parametrize("ids", [pa.array([1.0, 2.0]), pa.array([True, False]), pa.array([["a"], ["b"]])])
def test_a_column_that_cannot_name_items_is_refused(tmp_path, ids):
    with pytest.raises(JobError, match="ids are text or whole numbers: cast it, or name another column"):
        opened(tmp_path, pa.table({"ticket": ids}), id_column="ticket")


def test_a_near_miss_of_the_id_column_is_told(tmp_path):
    with pytest.raises(JobError, match=r"no column 'ticket' for the id; did you mean 'tickets'\?"):
        opened(tmp_path, pa.table({"tickets": ["a"]}), id_column="ticket")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:200], lambda data: b"", lambda data: b"x" * 500]
)
def test_a_damaged_file_is_refused_before_the_start(tmp_path, damage):
    opened(tmp_path, pa.table({"id": [str(n) for n in range(100)]}))
    path = tmp_path / "0.parquet"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(JobError, match=r"0\.parquet: damaged"):
        sources.check(sources.open_input("0.parquet", base=tmp_path))


def damage_first_page(path: Path, *, group: int) -> None:
    offset = pq.ParquetFile(path).metadata.row_group(group).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


PLAIN = {"compression": "none", "use_dictionary": False}


def test_damage_in_a_column_that_names_nothing_is_found_too(tmp_path):
    table = pa.table({"id": [str(n) for n in range(100)], "text": [f"text {n}" for n in range(100)]})
    opened(tmp_path, table, write_page_checksum=True, **PLAIN)
    path = tmp_path / "0.parquet"
    path.write_bytes(path.read_bytes().replace(b"text 50", b"test 50"))

    with pytest.raises(JobError, match=r"0\.parquet: damaged"):
        sources.check(sources.open_input("0.parquet", base=tmp_path))


def test_row_groups_without_wanted_rows_are_not_read(tmp_path):
    """Seen by their damage: what is not read cannot be missed."""
    source = opened(tmp_path, pa.table({"id": range(3_000)}), row_group_size=1_000, **PLAIN)
    damage_first_page(tmp_path / "0.parquet", group=0)
    damage_first_page(tmp_path / "0.parquet", group=2)

    items = list(source.rows(skip=b"\1" * 1_000, stop=2_000))

    assert [item.item_id for item in items] == [str(n) for n in range(1_000, 2_000)]
    assert [item.row for item in items] == list(range(1_000, 2_000))
    assert list(source.rows(skip=b"\1" * 3_000)) == []
    with pytest.raises(JobError, match="damaged"):
        list(source.rows())


def test_several_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["id", "id"])

    with pytest.raises(JobError, match="several columns are called 'id'"):
        opened(tmp_path, table)


def test_a_table_without_rows_still_has_columns(tmp_path):
    checked = sources.check(opened(tmp_path, pa.table({"id": pa.array([], pa.string())})))

    assert (checked.rows, checked.columns) == (0, {"id": "string"})
