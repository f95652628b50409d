"""`--lease` as a user meets it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from driving import api, batchrunner, prompts, run_words, write_rows

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
name = "shared"
[input]
path = "rows.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "env:MY_KEY"
[request]
agent_id = 8794
[limits]
requests_per_minute = 60_000
lease = "lease"
"""


def test_the_jobs_lease_is_beside_it_and_holds_no_secret(tmp_path: Path):
    (tmp_path / "jobs").mkdir()
    write_rows(tmp_path / "jobs/rows.jsonl", prompts(5))
    with api(tmp_path / "log") as server:
        (tmp_path / "jobs/shared.toml").write_text(JOB.format(url=server.url))
        ended = batchrunner("run", tmp_path / "jobs/shared.toml", cwd=tmp_path, env={"MY_KEY": "sk-very-secret-1234"})

    written = (tmp_path / "jobs/lease").read_text()
    assert ended.code == 0, ended.err
    assert "secret" not in written
    assert list(json.loads(written)["lanes"]) == [f"tess {server.url} key MY_KEY"]


@pytest.mark.slow
def test_a_flag_and_a_variable_are_relative_to_where_one_is(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))
    (tmp_path / "here").mkdir()
    with api(tmp_path / "log") as server:
        words = run_words(rows, server.url)
        first = batchrunner(*words, "--lease", "flag", cwd=tmp_path / "here")
        second = batchrunner(*words, "--fresh", cwd=tmp_path / "here", env={"BATCHRUNNER_LEASE": "variable"})

    assert (first.code, second.code) == (0, 0), second.err
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["flag", "variable"]


def test_a_lease_that_is_a_file_of_the_users_is_a_fault_before_anything_is_made(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9"), "--lease", rows)

    assert ended.code == 2
    assert "rows.jsonl is no lease file, and is left as it is" in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("more", [(), ("--lease", "lease")])
@pytest.mark.slow
def test_a_shard_has_its_part_of_a_limit_unless_it_is_shared(tmp_path: Path, more: tuple[str, ...]):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(20))
    with api(tmp_path / "log") as server:
        words = run_words(rows, server.url, "--rpm", 60_000, "--shard", "0/4", "--json", *more)
        lanes = batchrunner(*words, cwd=tmp_path).summary["lanes"]

    assert [lane["requests_per_minute"] for lane in lanes] == [60_000 if more else 15_000]
