"""Parts hold exactly what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.errors import RunError
from batchrunner.records import Outcome
from batchrunner.schema import OUTCOME, PART
from batchrunner.store import parts
from batchrunner.store.ledger import code_of

if TYPE_CHECKING:
    from pathlib import Path

LONG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=20)
KINDS = {
    "string": TEXT,
    "int64": LONG,
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "timestamp[us, tz=UTC]": st.integers(-(2**55), 2**55),
}
NEEDED = {"item_id", "row", "input_file", "status", "attempts", "possibly_billed"}
OUTCOMES = st.builds(
    Outcome,
    **{
        field.name: KINDS[str(field.type)] if field.name in NEEDED else st.none() | KINDS[str(field.type)]
        for field in OUTCOME
        if field.name != "status"
    },
    status=st.sampled_from(["succeeded", "rejected", "exhausted"]),
)


def outcome(row: int = 0, **fields: Any) -> Outcome:
    return Outcome(
        **{"item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": 1, "status": "succeeded"} | fields
    )


def table_of(*outcomes: Outcome, after: int = 0, epoch: int = 1) -> Any:
    return parts.to_table([parts.encode(one) for one in outcomes], after=after, epoch=epoch)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """A table's rows with times as the record has them."""
    times = {"started_at", "finished_at"}
    plain = {name: table[name].cast("int64") if name in times else table[name] for name in table.column_names}
    return [
        dict(zip(plain, values, strict=True)) for values in zip(*(c.to_pylist() for c in plain.values()), strict=True)
    ]


def check_table(outcomes: list[Outcome]) -> None:
    table = table_of(*outcomes, after=6, epoch=3)

    assert table.schema == PART
    expected = [{**asdict(one), "sequence": number, "epoch": 3} for number, one in enumerate(outcomes, 7)]
    assert rows_of(table) == expected


@given(st.lists(OUTCOMES, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_table_holds_every_outcome_exactly(outcomes: list[Outcome]):
    check_table(outcomes)


@pytest.mark.slow
@given(st.lists(OUTCOMES, max_size=5))
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_many_tables_hold_every_outcome_exactly(outcomes: list[Outcome]):
    check_table(outcomes)


def test_odd_and_huge_texts_are_kept_exactly():
    odd = 'nul \0, separator \u2028, \U0001f600, \x7f \x1b[0m, "quotes" \\ and\r\nlines'
    huge = "x" * 20_000_000

    table = table_of(outcome(0, text=odd, response=huge), outcome(1, text=""), outcome(2))

    assert table["text"].to_pylist() == [odd, "", None]
    assert table["response"][0].as_py() == huge


def test_what_utf8_cannot_hold_is_replaced_not_lost():
    table = table_of(outcome(0, text="half \ud83d pair", item_id="\ud83d\ude00"))

    assert table["text"].to_pylist() == ["half \ufffd pair"]
    assert table["item_id"].to_pylist() == ["\U0001f600"]


def test_one_value_that_fits_no_column_keeps_nothing_else_out():
    table = table_of(
        outcome(0, http_status=70_000, text="a"), outcome(1, prompt_tokens=2**70, text="b", http_status=200)
    )

    assert table["http_status"].to_pylist() == [None, 200]
    assert table["prompt_tokens"].to_pylist() == [None, None]
    assert table["text"].to_pylist() == ["a", "b"]


def test_a_part_is_sorted_by_row_and_says_what_it_holds(tmp_path: Path):
    part = parts.write(tmp_path, table_of(outcome(5), outcome(2), outcome(9), after=10, epoch=4), 0o640)

    path = tmp_path / part.name
    assert (part.name, part.rows, part.epoch) == ("000000000011-000000000013.parquet", 3, 4)
    assert (part.first_sequence, part.last_sequence, part.size_bytes) == (11, 13, path.stat().st_size)
    assert parts.read(path, ["sequence", "row"]).to_pydict() == {"sequence": [12, 11, 13], "row": [2, 5, 9]}
    assert parts.read(path).schema == PART
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_part_never_replaces_another_file(tmp_path: Path):
    table = table_of(outcome())
    parts.write(tmp_path, table, 0o640)

    with pytest.raises(FileExistsError):
        parts.write(tmp_path, table, 0o640)

    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("data", [None, b"", b"not parquet at all, but long enough"])
def test_a_missing_or_damaged_part_is_refused_by_name(tmp_path: Path, data: bytes | None):
    path = tmp_path / "000000000001-000000000002.parquet"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(RunError, match=path.name):
        parts.read(path, ["row"])


def test_codes_are_those_of_the_ledger():
    outcomes = [
        outcome(0),
        outcome(1, status="rejected", error_type="bad_request", attempts=2),
        outcome(2, status="rejected", error_type="bad_row", attempts=1),
        outcome(3, status="rejected", error_type=None, attempts=0),
        outcome(4, status="rejected", error_type=None, attempts=1),
        outcome(5, status="exhausted", error_type="timeout", attempts=5),
    ]

    codes = parts.codes(table_of(*outcomes)).to_pylist()

    assert codes == [code_of(one.status, one.error_type, one.attempts) for one in outcomes] == [1, 2, 4, 4, 2, 3]
