"""Which files an input is, and standard input in place of files."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import sources
from batchrunner.errors import JobError

HERE = Path(__file__).parent


def touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def paths(found: sources.Input) -> list[Path]:
    return [part.path for part in found.parts]


def names(directory: Path, *patterns: str) -> list[str]:
    return [str(path.relative_to(directory)) for path in paths(sources.open_input(patterns, base=directory))]


def refusal(directory: Path, *patterns: str) -> str:
    with pytest.raises(JobError) as refused:
        sources.open_input(patterns, base=directory)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_every_source_is_held_to_the_contract():
    assert sources.available() == ["csv", "jsonl", "parquet"]
    for name in sources.available():
        assert "(SourceContract)" in (HERE / f"test_sources_{name}.py").read_text()


def test_a_glob_gives_its_files_in_order(tmp_path):
    touch(tmp_path, "b.jsonl", "a.jsonl", "c.csv", "deep/d.jsonl", ".hidden.jsonl", "dir.jsonl/x.txt")

    assert names(tmp_path, "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path, "**/*.jsonl") == ["a.jsonl", "b.jsonl", "deep/d.jsonl"]


def test_what_a_writer_keeps_for_itself_is_read_only_where_it_is_spelled_out(tmp_path):
    touch(tmp_path, "a.jsonl", "_b.jsonl", "_temporary/0/c.jsonl", "d/_old/e.jsonl")

    assert names(tmp_path, "**/*.jsonl") == ["_b.jsonl", "a.jsonl"]
    assert names(tmp_path, "_temporary/*/*.jsonl") == ["_temporary/0/c.jsonl"]
    assert names(tmp_path, f"{tmp_path}/d/_o*/*.jsonl") == ["d/_old/e.jsonl"]


def test_patterns_keep_their_order_and_name_a_file_once(tmp_path):
    touch(tmp_path, "a.jsonl", "b.ndjson", "c.JSONL")

    assert names(tmp_path, "b.ndjson", "*.jsonl", "c.JSONL", "a.jsonl") == ["b.ndjson", "a.jsonl", "c.JSONL"]


def test_a_file_whose_name_looks_like_a_glob_is_found(tmp_path):
    touch(tmp_path, "rows[1].jsonl", "rows1.jsonl")

    assert names(tmp_path, "rows[1].jsonl") == ["rows[1].jsonl"]


def test_an_absolute_path_needs_no_base(tmp_path):
    touch(tmp_path, "a.jsonl")

    assert paths(sources.open_input(str(tmp_path / "*.jsonl"), base=Path("/nowhere"))) == [tmp_path / "a.jsonl"]


def test_nothing_found_says_where_it_was_looked_for(tmp_path):
    touch(tmp_path, "tickets.jsonl")

    assert refusal(tmp_path, "x-*.csv") == f"no file matches 'x-*.csv' (looked in {tmp_path})"
    assert "ticket.jsonl: no such file" in refusal(tmp_path, "ticket.jsonl")
    assert "did you mean 'tickets.jsonl'?" in refusal(tmp_path, "ticket.jsonl")


def test_all_patterns_that_find_nothing_are_told_at_once(tmp_path):
    assert len(refusal(tmp_path, "a.jsonl", "b-*.jsonl").splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rows.json", "unknown suffix '.json'; did you mean '.jsonl'?"),
        ("rows.jsnol.gz", "unknown suffix '.jsnol'; did you mean '.jsonl'?"),
        ("rows.tsv", "did you mean '.csv'?"),
        ("rows.xlsx", "(known: .csv, .jsonl, .ndjson, .parquet, also with .gz or .zst)"),
        ("rows", "rows: no suffix"),
    ],
)
def test_an_unknown_suffix_says_what_was_meant(tmp_path, name, hint):
    touch(tmp_path, name)

    assert hint in refusal(tmp_path, name)


def test_formats_are_not_mixed(tmp_path):
    touch(tmp_path, "a.jsonl", "b.csv")

    assert "mixes formats: a.jsonl, b.csv" in refusal(tmp_path, "*")


def test_a_directory_and_an_object_store_are_refused_in_words(tmp_path):
    (tmp_path / "data").mkdir()

    said = refusal(tmp_path, "data/")
    assert "data/ is a directory without key=value folders; name its files, as in 'data/*.jsonl'" in said
    assert "s3://bucket/x.jsonl: not a file of this machine" in refusal(tmp_path, "s3://bucket/x.jsonl")


def spooled(directory: Path, data: bytes) -> sources.Input:
    source = sources.open_input("-", base=directory, spool=directory / "stdin", stdin=io.BytesIO(data))
    source.learn(sources.check(source))
    return source


def test_standard_input_is_kept_and_can_be_opened_again(tmp_path):
    source = spooled(tmp_path, b'{"id": 1}\n{"id": 2}\n')

    (first, second) = source.rows()

    assert (first.item_id, second.item_id, first.file, first.line) == ("1", "2", "-", 1)
    assert sources.place(second) == "standard input line 2"
    again = sources.open_spooled(tmp_path / "stdin")
    assert again.fingerprint() == source.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["stdin"]


def test_standard_input_may_be_packed_or_parquet(tmp_path):
    table = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), table)

    assert [item.item_id for item in spooled(tmp_path, gzip.compress(b'{"id": 1}', mtime=0)).rows()] == ["1"]
    assert [item.item_id for item in spooled(tmp_path, table.getvalue()).rows()] == ["a"]


def test_standard_input_stands_alone(tmp_path):
    touch(tmp_path, "a.jsonl")

    assert "cannot be read together with files" in refusal(tmp_path, "-", "a.jsonl")
    with pytest.raises(JobError, match="pipe the rows in again"):
        sources.open_spooled(tmp_path / "gone")


def test_a_shard_is_stable_and_fair():
    ids = [f"item-{n}" for n in range(3_000)]

    shares = [sum(sources.shard_of(item_id, 3) == index for item_id in ids) for index in range(3)]

    assert sum(shares) == 3_000
    assert min(shares) > 900
    # Shards of one job may run on different machines and versions: these numbers are for ever.
    assert [sources.shard_of(item_id, 8) for item_id in ("item-1", "é", "")] == [4, 7, 4]
