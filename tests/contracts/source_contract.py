"""What every source promises. A test class of any format inherits `SourceContract` and says how to write it."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import zstandard

from batchrunner import sources
from batchrunner.errors import JobError
from batchrunner.schema import OUTCOME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchrunner.records import Item
    from batchrunner.sources import Checked, Input

ODD_TEXTS = ["Grüße 🎈", "two\nlines", 'quo"ted, and', "nul \0 byte", "sep\u2028arator\u0085", " spaces ", "=1+1", "\\"]
PACKERS = {"gz": gzip.compress, "zst": zstandard.compress}


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"t-{n}", "text": f"text {n}", "size": n * 10} for n in range(first, first + count)]


def without_ids(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def facts(item: Item) -> tuple[Any, ...]:
    return item.item_id, item.row, item.file, item.line, dict(item.columns), item.fault


class SourceContract:
    """Promises of a file format."""

    kind: str
    has_lines: bool

    def encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        """A file of these rows, which all have the same columns."""
        raise AssertionError("a test class of a source says how its files are written")

    def write(self, directory: Path, rows: Sequence[dict[str, Any]], name: str = "rows") -> Path:
        path = directory / f"{name}.{self.kind}"
        path.write_bytes(self.encode(rows))
        return path

    def opened(self, directory: Path, pattern: str | None = None, *, id_column: str | None = None) -> Input:
        return sources.open_input(pattern or f"rows.{self.kind}", base=directory, id_column=id_column)

    def checked(self, source: Input) -> Checked:
        checked = sources.check(source)
        source.learn(checked)
        return checked

    def read(self, directory: Path, rows: Sequence[dict[str, Any]], *, id_column: str | None = None) -> list[Item]:
        self.write(directory, rows)
        source = self.opened(directory, id_column=id_column)
        self.checked(source)
        return list(source.rows())

    def test_rows_come_in_order_with_position_and_file(self, tmp_path):
        items = self.read(tmp_path, numbered(50))

        assert [item.item_id for item in items] == [f"t-{n}" for n in range(50)]
        assert [item.row for item in items] == list(range(50))
        assert {item.file for item in items} == {f"rows.{self.kind}"}

    def test_lines_are_known_where_there_are_lines(self, tmp_path):
        lines = [item.line for item in self.read(tmp_path, numbered(5))]

        if self.has_lines:
            assert [line - lines[0] for line in lines] == [0, 1, 2, 3, 4]
        else:
            assert lines == [None] * 5

    def test_columns_come_with_their_types(self, tmp_path):
        rows = [{"id": "a", "text": "x", "size": 3, "share": 0.5, "open": True, "gap": None}]

        (item,) = self.read(tmp_path, rows)

        assert dict(item.columns) == rows[0]
        assert [type(value) for value in item.columns.values()] == [str, str, int, float, bool, type(None)]

    def test_odd_texts_arrive_as_they_are(self, tmp_path):
        rows = [{"id": str(n), "text": text} for n, text in enumerate(ODD_TEXTS)]

        items = self.read(tmp_path, rows)

        assert [item.columns["text"] for item in items] == ODD_TEXTS

    @pytest.mark.parametrize("seed", range(4))
    def test_rows_that_are_skipped_change_nothing_for_the_others(self, tmp_path, seed):
        self.write(tmp_path, without_ids([*numbered(40), *numbered(40, 20)]))
        source = self.opened(tmp_path)
        self.checked(source)
        skip = bytearray(random.Random(seed).choices([0, 1], weights=[1, 3], k=80))

        some = [facts(item) for item in source.rows(skip=skip)]

        assert some == [facts(item) for item in source.rows() if not skip[item.row]]
        assert some != []

    def test_all_rows_may_be_skipped_and_skip_may_be_short(self, tmp_path):
        self.write(tmp_path, numbered(10))
        source = self.opened(tmp_path)
        self.checked(source)

        assert list(source.rows(skip=b"\1" * 10)) == []
        assert [item.row for item in source.rows(skip=memoryview(b"\1\1\1"))] == list(range(3, 10))

    def test_reading_stops_where_it_is_told(self, tmp_path):
        self.write(tmp_path, numbered(10))
        source = self.opened(tmp_path)

        assert [item.row for item in source.rows(stop=4)] == [0, 1, 2, 3]
        assert list(source.rows(stop=0)) == []
        assert len(list(source.rows(stop=99))) == 10

    def test_files_are_numbered_through(self, tmp_path):
        for number in range(3):
            self.write(tmp_path, numbered(4, number * 4), name=f"part-{number}")
        source = self.opened(tmp_path, f"part-*.{self.kind}")
        checked = self.checked(source)

        items = list(source.rows(skip=b"\1" * 4 + b"\0" * 3 + b"\1" * 2))

        assert checked.file_rows == (4, 4, 4)
        assert [(item.item_id, item.row, item.file) for item in items] == [
            *((f"t-{n}", n, f"part-1.{self.kind}") for n in (4, 5, 6)),
            *((f"t-{n}", n, f"part-2.{self.kind}") for n in (9, 10, 11)),
        ]

    @pytest.mark.parametrize("packing", PACKERS)
    def test_compressed_files_read_alike(self, tmp_path, packing):
        plain = self.write(tmp_path, numbered(200))
        (tmp_path / f"packed.{self.kind}.{packing}").write_bytes(PACKERS[packing](plain.read_bytes()))
        source = self.opened(tmp_path, f"packed.{self.kind}.{packing}")
        checked = self.checked(source)

        assert checked.rows == 200
        assert [dict(item.columns) for item in source.rows()] == numbered(200)

    @pytest.mark.parametrize("packing", PACKERS)
    @pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no" + data, lambda data: data + b"junk"])
    def test_a_damaged_archive_is_refused_before_the_start(self, tmp_path, packing, damage):
        data = PACKERS[packing](self.encode(numbered(500)))
        (tmp_path / f"rows.{self.kind}.{packing}").write_bytes(damage(data))

        with pytest.raises(JobError, match=rf"rows\.{self.kind}\.{packing}: damaged"):
            sources.check(self.opened(tmp_path, f"rows.{self.kind}.{packing}"))

    def test_a_file_that_is_gone_is_a_fault_of_the_job(self, tmp_path):
        path = self.write(tmp_path, numbered(3))
        source = self.opened(tmp_path)
        path.unlink()

        for look in (sources.check, lambda source: source.fingerprint(), lambda source: list(source.rows())):
            with pytest.raises(JobError, match="no such file"):
                look(source)

    def test_the_job_may_name_the_id_column(self, tmp_path):
        rows = [{"id": "same", "ticket": 7}, {"id": "same", "ticket": 8}]

        assert [item.item_id for item in self.read(tmp_path, rows, id_column="ticket")] == ["7", "8"]

    def test_custom_id_is_found_and_id_goes_first(self, tmp_path):
        assert [item.item_id for item in self.read(tmp_path, [{"custom_id": "c", "text": "x"}])] == ["c"]
        assert [item.item_id for item in self.read(tmp_path, [{"custom_id": "c", "id": "i"}])] == ["i"]

    def test_an_id_column_that_no_row_has_is_refused(self, tmp_path):
        self.write(tmp_path, [{"ticket_id": "a", "text": "x"}])

        with pytest.raises(JobError, match=r"'ticket'.*\(found: ticket_id, text\)"):
            sources.check(self.opened(tmp_path, id_column="ticket"))

    def test_duplicate_ids_are_refused_with_both_places(self, tmp_path):
        self.write(tmp_path, [*numbered(30), *numbered(3, 7)])

        with pytest.raises(JobError) as refused:
            sources.check(self.opened(tmp_path))

        places = ("line", 0) if self.has_lines else ("row", -1)
        assert len(refused.value.faults) == 3
        assert refused.value.faults[0].startswith(f"id 't-7' appears twice: rows.{self.kind} {places[0]} ")

    def test_of_many_duplicate_ids_the_first_ten_are_named(self, tmp_path):
        self.write(tmp_path, [*numbered(30), *numbered(30)])

        with pytest.raises(JobError) as refused:
            sources.check(self.opened(tmp_path))

        assert [fault.split()[1] for fault in refused.value.faults[:10]] == [f"'t-{n}'" for n in range(10)]
        assert refused.value.faults[10:] == ("there are more; ids must be unique",)

    def test_duplicate_ids_are_found_across_files(self, tmp_path):
        self.write(tmp_path, numbered(3), name="a")
        self.write(tmp_path, numbered(1, 2), name="b")

        with pytest.raises(JobError, match=rf"'t-2' appears twice: a\.{self.kind} \w+ \d and b\.{self.kind} "):
            sources.check(self.opened(tmp_path, f"*.{self.kind}"))

    def test_without_ids_a_row_is_known_by_its_content(self, tmp_path):
        rows = without_ids(numbered(20))
        before = {item.item_id: item.columns["text"] for item in self.read(tmp_path, rows)}
        random.Random(1).shuffle(rows)

        after = {item.item_id: item.columns["text"] for item in self.read(tmp_path, rows)}

        assert after == before
        assert len(after) == 20

    def test_rows_that_look_alike_are_numbered_by_appearance(self, tmp_path):
        row, other = {"text": "same", "size": 1}, {"text": "other", "size": 1}

        ids = [item.item_id for item in self.read(tmp_path, [row, other, row, row])]

        assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3"]
        assert len({*ids}) == 4

    def test_what_was_found_survives_being_remembered(self, tmp_path):
        self.write(tmp_path, without_ids([*numbered(6), *numbered(2)]))
        source = self.opened(tmp_path)
        checked = self.checked(source)
        items = [facts(item) for item in source.rows()]

        remembered = sources.Checked.from_json(json.loads(json.dumps(checked.to_json())))
        again = self.opened(tmp_path)
        again.learn(remembered)

        assert remembered == checked
        assert [facts(item) for item in again.rows()] == items

    def test_a_row_whose_id_is_none_is_faulty_and_the_others_are_not(self, tmp_path):
        rows = [{"id": "a", "text": "x"}, {"id": None, "text": "y"}, {"id": "c", "text": "z"}]

        items = self.read(tmp_path, rows)

        assert [item.fault is None for item in items] == [True, False, True]
        assert "expected an id, text or a whole number, got nothing" in str(items[1].fault)
        assert dict(items[1].columns) == {}
        assert len(items[1].item_id) == 16

    def test_faulty_rows_are_counted_and_the_first_ten_told(self, tmp_path):
        self.write(tmp_path, [{"id": None if n % 2 else f"t-{n}", "text": str(n)} for n in range(40)])

        checked = sources.check(self.opened(tmp_path))

        assert (checked.rows, checked.faulty, len(checked.faults)) == (40, 20, 10)
        assert checked.faults[0].startswith(f"rows.{self.kind} ")

    def test_the_pass_counts_the_rows_of_a_shard(self, tmp_path):
        self.write(tmp_path, without_ids([*numbered(200), *numbered(50)]))
        source = self.opened(tmp_path)
        self.checked(source)
        shards = [sources.shard_of(item.item_id, 3) for item in source.rows()]

        counted = [sources.check(source, shard=(index, 3)).shard_rows for index in range(3)]

        assert counted == [shards.count(index) for index in range(3)]
        assert min(counted) > 50

    def test_rows_added_after_the_check_wait_for_the_next_one(self, tmp_path):
        self.write(tmp_path, numbered(3), name="a")
        self.write(tmp_path, numbered(2, 10), name="b")
        source = self.opened(tmp_path, f"*.{self.kind}")
        self.checked(source)
        self.write(tmp_path, numbered(5), name="a")

        assert [(item.row, item.item_id) for item in source.rows()] == [
            *enumerate(["t-0", "t-1", "t-2", "t-10", "t-11"]),
        ]

    def test_the_fingerprint_tells_when_the_input_is_another(self, tmp_path):
        path = self.write(tmp_path, numbered(3))
        before = self.opened(tmp_path).fingerprint()

        assert self.opened(tmp_path).fingerprint() == before == json.loads(json.dumps(before))
        path.write_bytes(self.encode(numbered(3, 1)))
        assert self.opened(tmp_path).fingerprint() != before
        assert self.opened(tmp_path, id_column="text").fingerprint() != self.opened(tmp_path).fingerprint()

    def test_streaming_holds_a_part_of_the_input_only(self, tmp_path):
        filler = random.Random(0)
        self.write(tmp_path, [{"id": str(n), "text": filler.randbytes(5_000).hex()} for n in range(4_000)])
        source = self.opened(tmp_path)
        self.checked(source)
        tracemalloc.start()

        count = sum(1 for _ in source.rows())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert count == 4_000
        assert peak < 12_000_000

    def table(self, source: Input, keep: list[str] | None, **options: Any) -> pa.Table:
        checked = self.checked(source)
        schema = sources.kept_schema(checked, keep, OUTCOME.names)
        batches = list(sources.result_batches_input(source, checked, keep, OUTCOME.names, **options))
        return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)

    def test_the_results_get_places_ids_and_kept_columns(self, tmp_path):
        self.write(tmp_path, numbered(9_000))

        table = self.table(self.opened(tmp_path), ["size"])

        assert table.column_names == ["row", "item_id", "input_file", "input_line", "size"]
        assert table["row"].to_pylist() == list(range(9_000))
        assert table["item_id"].to_pylist() == [f"t-{n}" for n in range(9_000)]
        assert table["size"].to_pylist() == [n * 10 for n in range(9_000)]
        assert table.schema.field("size").type == pa.int64()

    def test_the_results_agree_with_the_rows(self, tmp_path):
        self.write(tmp_path, without_ids([*numbered(30), *numbered(10)]))
        source = self.opened(tmp_path)

        table = self.table(source, None)

        items = list(source.rows())
        assert table["item_id"].to_pylist() == [item.item_id for item in items]
        assert table["input_line"].to_pylist() == [item.line for item in items]
        assert table["input_text"].to_pylist() == [item.columns["text"] for item in items]

    def test_kept_columns_stop_and_are_sharded_like_the_rows(self, tmp_path):
        self.write(tmp_path, numbered(100))
        source = self.opened(tmp_path)

        tables = [self.table(source, ["size"], shard=(index, 2), stop=60) for index in range(2)]

        for index, table in enumerate(tables):
            own = [n for n in range(60) if sources.shard_of(f"t-{n}", 2) == index]
            assert table["row"].to_pylist() == own
            assert table["size"].to_pylist() == [n * 10 for n in own]

    def test_a_kept_column_that_the_results_have_already_gets_another_name(self, tmp_path):
        rows = [{"id": "a", "status": "new", "input_status": "old", "row": 5}]
        self.write(tmp_path, rows)

        table = self.table(self.opened(tmp_path), None)

        assert table.column_names[4:] == ["id", "input_input_status", "input_status", "input_row"]

    def test_faulty_rows_keep_nothing(self, tmp_path):
        self.write(tmp_path, [{"id": "a", "note": "x"}, {"id": None, "note": "y"}, {"id": "c", "note": "z"}])

        table = self.table(self.opened(tmp_path), None)

        assert table["id"].to_pylist() == ["a", None, "c"]
        assert table["note"].to_pylist() == ["x", None, "z"]

    def test_a_column_to_keep_must_exist(self, tmp_path):
        self.write(tmp_path, numbered(2))
        checked = sources.check(self.opened(tmp_path))

        with pytest.raises(JobError, match="no column 'siez'; did you mean 'size'"):
            sources.kept_schema(checked, ["siez"], OUTCOME.names)
        assert sources.kept_columns(checked, None, apart={"text"}) == ["id", "size"]
