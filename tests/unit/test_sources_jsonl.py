"""JSON Lines: what counts as a row, what is wrong with one, what its columns hold."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from contracts.source_contract import SourceContract
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchrunner.records import Item
    from batchrunner.sources import Input

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def opened(directory: Path, data: bytes, id_column: str | None = None) -> Input:
    (directory / "rows.jsonl").write_bytes(data)
    source = sources.open_input("rows.jsonl", base=directory, id_column=id_column)
    source.learn(sources.check(source))
    return source


def read(directory: Path, data: bytes, id_column: str | None = None) -> list[Item]:
    return list(opened(directory, data, id_column).rows())


def types(directory: Path, *rows: dict[str, Any]) -> dict[str, str]:
    return dict(sources.check(opened(directory, b"\n".join(map(json_line, rows)))).columns)


def json_line(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


class TestJsonl(SourceContract):
    kind, has_lines = "jsonl", True

    def encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        return b"".join(json_line(row) + b"\n" for row in rows)


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path):
    items = read(tmp_path, b'\n{"id": 1}\n\n  \t\r\n{"id": 2}\n\n')

    assert [(item.item_id, item.row, item.line) for item in items] == [("1", 0, 2), ("2", 1, 5)]


@pytest.mark.parametrize(
    "data", [b'{"id":1}\r\n{"id":2}\r\n', b'\xef\xbb\xbf{"id":1}\n{"id":2}', b'{"id":1}\n{"id":2}']
)
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, data):
    assert [(item.item_id, item.fault) for item in read(tmp_path, data)] == [("1", None), ("2", None)]


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf", b" \n \n"])
def test_an_input_may_have_no_rows(tmp_path, data):
    checked = sources.check(opened(tmp_path, data))

    assert (checked.rows, checked.columns) == (0, {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": 1,}', r"not JSON: .+ \(column 9\)"),
        (b'{"id": 1', r"not JSON: .+ \(column 9\)"),
        (b'{"text": "\xff"}', "not UTF-8: byte 11 of the line is 0xff"),
        (b"[1, 2]", "expected a JSON object, got an array"),
        (b'"text"', "expected a JSON object, got text"),
        (b"7", "expected a JSON object, got a number"),
        (b"null", "expected a JSON object, got null"),
        (b"\0\0\0\0", "nothing but NUL bytes"),
        (b'{"id": NaN}', r"not JSON: .+ \(column 8\)"),
        (b'{"id": true}', "column 'id': expected an id, text or a whole number, got True"),
        (b'{"id": 1.0}', "column 'id': expected an id, text or a whole number, got 1.0"),
        (b'{"id": ["a"]}', "column 'id': expected an id, text or a whole number, got a list"),
        (b'{"id": ""}', "column 'id': expected an id, text or a whole number, got nothing"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "nested deeper than 200 levels"),
    ],
)
def test_a_bad_row_says_why_and_harms_no_other(tmp_path, line, why):
    before, bad, after = read(tmp_path, b'{"id": "a"}\n' + line + b'\n{"id": "b"}\n')

    assert re.fullmatch(why, str(bad.fault))
    assert (bad.row, bad.line, dict(bad.columns)) == (1, 2, {})
    assert (before.item_id, after.item_id, after.row, after.line) == ("a", "b", 2, 3)


def test_bad_rows_are_known_by_their_bytes(tmp_path):
    first, again, crlf, other = read(tmp_path, b'{"a\n{"a\n{"a\r\n{"b\n')

    assert [again.item_id, crlf.item_id] == [f"{first.item_id}-2", f"{first.item_id}-3"]
    assert other.item_id not in (first.item_id, again.item_id)


def test_a_row_of_ten_megabytes_is_read(tmp_path):
    text = "x" * 10_000_000

    before, long, after = read(tmp_path, b'{"id":1}\n' + json_line({"id": 2, "text": text}) + b'\n{"id":3}')

    assert (long.fault, long.columns["text"] == text) == (None, True)
    assert (before.item_id, after.item_id) == ("1", "3")


def test_a_row_above_the_bound_is_passed_over_without_being_held(tmp_path):
    huge = b'{"id":2,"text":"' + b"x" * (17 << 20) + b'"}'

    data = b"\n".join([b'{"id":1}', huge, huge, b" " + huge, b'{"id":3}'])

    before, long, again, other, after = read(tmp_path, data)

    assert {long.fault, again.fault, other.fault} == {"longer than 16 MiB"}
    assert again.item_id == f"{long.item_id}-2"
    assert not other.item_id.startswith(long.item_id)
    assert [(item.item_id, item.line) for item in (before, after)] == [("1", 1), ("3", 5)]


def test_lines_are_counted_over_all_that_is_skipped(tmp_path):
    source = opened(tmp_path, b"".join(b'{"id":%d}\n \n' % n for n in range(100_000)))

    (item,) = source.rows(skip=b"\1" * 99_999)

    assert (item.item_id, item.row, item.line) == ("99999", 99_999, 199_999)


def test_ids_are_looked_for_row_by_row(tmp_path):
    items = read(tmp_path, b'{"id": 7}\n{"custom_id": "c"}\n{"text": "x"}\n{"id": "00", "custom_id": "d"}')

    assert [item.item_id for item in items[:2]] == ["7", "c"]
    assert len(items[2].item_id) == 16
    assert items[3].item_id == "00"


def test_a_row_without_the_named_id_is_faulty(tmp_path):
    good, bad = read(tmp_path, b'{"ticket": "a", "id": 1}\n{"id": 2, "text": "x"}', id_column="ticket")

    assert good.item_id == "a"
    assert bad.fault == "no 'ticket' key (found: id, text)"


def test_the_order_of_keys_does_not_make_another_row(tmp_path):
    first, second = read(tmp_path, b'{"a": 1, "b": [2]}\n{"b":[2],"a":1}')

    assert second.item_id == f"{first.item_id}-2"


def test_an_id_that_looks_like_the_hash_of_another_row_is_refused(tmp_path):
    (item,) = read(tmp_path, b'{"text": "x"}')

    with pytest.raises(JobError, match="appears twice"):
        opened(tmp_path, b'{"text": "x"}\n' + json_line({"id": item.item_id}))


def test_numbers_beyond_64_bits_stay_as_written(tmp_path):
    source = opened(tmp_path, b'{"id": 1, "n": 123456789012345678901234567890}\n{"n": 5}')

    assert [item.columns["n"] for item in source.rows()] == [123456789012345678901234567890, 5]
    (batch,) = sources.result_batches_input(source, sources.check(source), ["n"], OUTCOME.names)
    assert batch.column("n").to_pylist() == ["123456789012345678901234567890", "5"]


def test_an_id_beyond_64_bits_is_read_to_the_digit(tmp_path):
    assert read(tmp_path, b'{"id": 123456789012345678901234567890}')[0].item_id == "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, -(2**63), 2**63 - 1, None], "int64"),
        ([1, 2**63], "json"),
        ([1, 0.5], "double"),
        ([2**53 + 1, 0.5], "json"),
        ([True, False], "bool"),
        ([True, 1], "json"),
        (["a", None], "string"),
        (["a", 1], "json"),
        ([[1], [2]], "json"),
        ([{"a": 1}], "json"),
        ([None], "string"),
    ],
)
def test_a_column_has_the_type_on_which_all_its_values_agree(tmp_path, values, kind):
    assert types(tmp_path, *({"id": n, "c": value} for n, value in enumerate(values)))["c"] == kind


def test_columns_of_any_row_are_known_by_first_appearance(tmp_path):
    assert list(types(tmp_path, {"id": 1}, {"b": 1, "id": 2}, {"a": "x"})) == ["id", "b", "a"]


def test_columns_that_do_not_agree_are_kept_as_json(tmp_path):
    source = opened(tmp_path, b'{"id":1,"c":"text"}\n{"id":2,"c":[1,"\xc3\xbc"]}\n{"id":3,"c":null}\n{"id":4}\nbad\n')

    (batch,) = sources.result_batches_input(source, sources.check(source), ["c"], OUTCOME.names)

    assert batch.column("c").to_pylist() == ['"text"', '[1,"ü"]', None, None, None]


def test_text_in_utf16_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(JobError, match=r"rows\.jsonl: the text is UTF-16; write it as UTF-8"):
        opened(tmp_path, '{"id": 1}\n'.encode("utf-16"))


def test_too_many_columns_are_refused(tmp_path):
    with pytest.raises(JobError, match="more than 10,000 different columns"):
        opened(tmp_path, b"\n".join(json_line({f"key {n}": 1}) for n in range(10_001)))


NAMES = st.sampled_from(["id", "custom_id", "text"]) | st.text(max_size=8)


def has_id(row: dict[str, Any]) -> bool:
    return "id" in row or "custom_id" in row


def states_a_wrong_id(row: dict[str, Any]) -> bool:
    stated = next((row[name] for name in ("id", "custom_id") if name in row), "none")
    return stated == "" or type(stated) not in (str, int)


@given(
    rows=st.lists(st.dictionaries(NAMES, JSON, max_size=5), max_size=12),
    joint=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_objects_come_back_in_order_with_ids_of_their_own(tmp_path, rows, joint):
    """Through a file and back: the same objects, one item each, whatever they hold."""
    data = joint.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    stated = [str(row.get("id", row.get("custom_id"))) for row in rows if has_id(row) and not states_a_wrong_id(row)]
    if len({*stated}) < len(stated):
        with pytest.raises(JobError, match="appears twice"):
            read(tmp_path, data)
        return

    items = read(tmp_path, data)

    assert len({item.item_id for item in items}) == len(items) == len(rows)
    assert [item.fault is not None for item in items] == [states_a_wrong_id(row) for row in rows]
    for item, row in zip(items, rows, strict=True):
        # Inside of objects, whole numbers beyond 64 bits are floats.
        assert item.fault is not None or item.columns in (row, orjson.loads(json.dumps(row)))
