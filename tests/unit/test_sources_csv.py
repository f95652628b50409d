"""CSV: records over several lines, cells and what they spell, what is wrong with a record."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from contracts.source_contract import SourceContract
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import sources
from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchrunner.records import Item
    from batchrunner.sources import Input


def opened(directory: Path, data: bytes, id_column: str | None = None) -> Input:
    (directory / "rows.csv").write_bytes(data)
    source = sources.open_input("rows.csv", base=directory, id_column=id_column)
    source.learn(sources.check(source))
    return source


def read(directory: Path, data: bytes, id_column: str | None = None) -> list[Item]:
    return list(opened(directory, data, id_column).rows())


def cells(directory: Path, *column: str) -> tuple[str, list[Any]]:
    source = opened(directory, "\n".join(["id,c", *(f"{n},{cell}" for n, cell in enumerate(column))]).encode())
    return sources.check(source).columns["c"], [item.columns["c"] for item in source.rows()]


class TestCsv(SourceContract):
    kind, has_lines = "csv", True

    def encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()


def test_a_record_stands_on_its_first_line(tmp_path):
    items = read(tmp_path, b'id,text\r\n1,"two\r\nlines"\r\n\r\n2,one\r\n3,"a\n\nb"\n4,x')

    assert [(item.item_id, item.row, item.line) for item in items] == [
        ("1", 0, 2),
        ("2", 1, 5),
        ("3", 2, 6),
        ("4", 3, 9),
    ]
    assert [item.columns["text"] for item in items] == ["two\r\nlines", "one", "a\n\nb", "x"]


@pytest.mark.parametrize("skip", [b"\1\0\0", b"\0\1\0", b"\1\1\0", b"\1\0\1"])
def test_records_over_several_lines_are_passed_over_whole(tmp_path, skip):
    source = opened(tmp_path, b'id,text\n1,"a\n9,fake"\n2,5" pipe\n3,"x""\n""y"\n')

    assert [(item.row, item.item_id) for item in source.rows(skip=skip)] == [
        (row, str(row + 1)) for row in range(3) if not skip[row]
    ]


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (["1", "", "-20"], "int64", [1, None, -20]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "string", ["9223372036854775808"]),
        (["1", "0.5", "1e-3"], "double", [1.0, 0.5, 0.001]),
        (["0.14285714285714285"], "double", [1 / 7]),
        (["0.142857142857142857142857"], "string", ["0.142857142857142857142857"]),
        (["true", "FALSE", ""], "bool", [True, False, None]),
        (["007", "1"], "string", ["007", "1"]),
        (["+1"], "string", ["+1"]),
        ([" 1"], "string", [" 1"]),
        (["1", "x"], "string", ["1", "x"]),
        (["true", "1"], "string", ["true", "1"]),
        (["nan", "1.5"], "string", ["nan", "1.5"]),
        (["1_000"], "string", ["1_000"]),
        (["1.", "2"], "string", ["1.", "2"]),
        (["-0"], "string", ["-0"]),
        (["\u0663"], "string", ["\u0663"]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),
        (["", ""], "string", [None, None]),
    ],
)
def test_cells_have_the_type_that_their_whole_column_spells(tmp_path, column, kind, values):
    found, read_values = cells(tmp_path, *column)

    assert (found, read_values) == (kind, values)
    assert [type(value) for value in read_values] == [type(value) for value in values]


def test_ids_are_the_text_of_their_cells(tmp_path):
    assert [item.item_id for item in read(tmp_path, b"id,x\n1.50,a\n2,b\n")] == ["1.50", "2"]


def test_a_row_that_changes_the_type_of_a_column_changes_no_id(tmp_path):
    (before,) = read(tmp_path, b"n,text\n5,x\n")
    after, _ = read(tmp_path, b"n,text\n5,x\nfive,y\n")

    assert before.item_id == after.item_id
    assert (before.columns["n"], after.columns["n"]) == (5, "5")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"1,a,b", "expected 2 cells, got 3"),
        (b"1", "expected 2 cells, got 1"),
        (b'1,"a"b', "not CSV: ',' expected after '\"'"),
        (b"1,\xff", "not UTF-8: byte 3 of the line is 0xff"),
        (b'1,"a\n\xff,b\nc"', "not UTF-8: byte 1 of the line is 0xff"),
        (b",a", "column 'id': expected an id, text or a whole number, got nothing"),
    ],
)
def test_a_bad_record_says_why_and_harms_no_other(tmp_path, record, why):
    before, bad, after = read(tmp_path, b"id,text\n0,x\n" + record + b"\n2,y\n")

    assert (bad.fault, bad.row, bad.line) == (why, 1, 3)
    assert [item.item_id for item in (before, after)] == ["0", "2"]
    assert after.fault is None


def test_a_quote_that_is_never_closed_is_one_bad_row(tmp_path):
    good, bad = read(tmp_path, b'id,text\n1,x\n2,"never\nclosed\n')

    assert (good.fault, bad.fault, bad.line) == (None, "not CSV: unexpected end of data", 3)


def test_a_long_cell_is_read_and_one_above_the_bound_is_not(tmp_path):
    long = b"x" * 1_000_000

    first, second, third = read(tmp_path, b"id,text\n1," + long + b'\n2,"' + long * 17 + b'"\n3,y\n')

    assert (first.columns["text"], third.item_id) == (long.decode(), "3")
    assert str(second.fault).startswith("longer than 16 MiB")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfid,text\n1,x\n")[0].columns == {"id": 1, "text": "x"}


def test_a_column_without_a_name_is_called_by_its_position(tmp_path):
    assert list(read(tmp_path, b",id\n0,a\n")[0].columns) == ["column_1", "id"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no header row"),
        (b"\n\n", "no header row"),
        (b"a,b,a\n", "several columns are called 'a'"),
        (b'"a\n', "header"),
    ],
)
def test_a_file_without_a_usable_header_is_refused(tmp_path, data, why):
    with pytest.raises(JobError, match=why):
        opened(tmp_path, data)


def test_a_header_alone_is_an_empty_input(tmp_path):
    checked = sources.check(opened(tmp_path, b"id,text\n"))

    assert (checked.rows, checked.columns) == (0, {"id": "string", "text": "string"})


CELL = st.text(st.sampled_from("a1,\"\n\r\0 'é;="), max_size=6)


@given(table=st.lists(st.tuples(CELL, CELL), max_size=10), skip=st.binary(max_size=12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_writer_writes_is_read_back_also_in_part(tmp_path, table, skip):
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("a", "b"), *table])
    source = opened(tmp_path, out.getvalue().encode())

    items = list(source.rows(skip=skip))

    wanted = [row for row in range(len(table)) if row >= len(skip) or not skip[row]]
    assert [item.row for item in items] == wanted
    for item in items:
        spelled = tuple("" if value is None else value for value in item.columns.values())
        assert spelled == table[item.row] or tuple(map(str, spelled)) == table[item.row]
