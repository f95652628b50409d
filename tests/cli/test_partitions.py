"""A table of folders, filtered: the nights of people whose rows lie in a lake."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import polars as pl
import pytest
from counting_server import counting
from driving import batchrunner, finish, start

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
name = "triage"
[params]
region = "eu"
[input]
path = "lake/tickets"
id = "ticket"
where = "{where}"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
agent_id = 1
prompt = "{{{{ ds }}}} {{{{ region }}}}: {{{{ body }}}}"
[limits]
requests_per_minute = "none"
[output]
keep = ["ds", "region", "open"]
"""
OPEN = "region = 'eu' AND open"


def write_job(folder: Path, url: str, where: str = OPEN) -> Path:
    job = folder / "job.toml"
    job.write_text(JOB.format(url=url, where=where))
    return job


def write_day(folder: Path, day: str) -> None:
    for region in ("eu", "us"):
        at = folder / f"lake/tickets/ds={day}/region={region}"
        at.mkdir(parents=True)
        rows = [
            {"ticket": f"{day}-{region}-{number}", "body": f"text {number}", "open": number % 2 == 0}
            for number in range(10)
        ]
        pl.DataFrame(rows).write_parquet(at / "part-0.parquet")


@pytest.mark.slow
def test_each_night_buys_what_its_folders_and_its_filter_add(tmp_path):
    write_day(tmp_path, "2026-11-20")
    write_day(tmp_path, "2026-11-21")
    with counting() as server:
        job = write_job(tmp_path, server.url)
        planned = batchrunner("plan", job)
        first = batchrunner("run", job, "--json")
        again = batchrunner("run", job, "--json")
        exported = batchrunner("export", job, "--format", "jsonl")
        write_day(tmp_path, "2026-11-22")
        more = batchrunner("run", job, "--json")
        wider = batchrunner("run", write_job(tmp_path, server.url, "open"), "--json")
        narrower = batchrunner("run", write_job(tmp_path, server.url, "open AND ds > '2026-11-21'"), "--json")
        reported = batchrunner("report", job)

    assert "10: 0 settled, 10 to buy" in planned.out
    assert [run.code for run in (first, again, more, wider, narrower)] == [0] * 5, more.err
    assert [run.summary["now"]["sent"] for run in (first, again, more, wider, narrower)] == [10, 0, 5, 15, 0]
    assert [run.summary["items"]["total"] for run in (first, more, wider, narrower)] == [10, 15, 30, 10]
    assert exported.out.count('"region":"eu"') == 10
    table = pl.read_parquet(narrower.summary["results"])
    assert table["ds"].unique().to_list() == ["2026-11-22"]
    assert table["region"].value_counts().sort("region").rows() == [("eu", 5), ("us", 5)]
    assert table["row"].to_list() == [*range(10)]
    assert table["text"][0].startswith("echo: 2026-11-22 eu: text 0")
    assert "10 rows" in reported.out


def test_a_parameter_of_the_filter_names_the_run(tmp_path):
    """Otherwise one region's rows would replace the other's."""
    write_day(tmp_path, "2026-11-20")
    with counting() as server:
        job = write_job(tmp_path, server.url, "region = '{{ params.region }}' AND open")
        runs = [batchrunner("run", job, "--param", f"region={region}", "--json").summary for region in ("eu", "us")]
        job.write_text(job.read_text().replace("[output]", '[output]\ndir = "runs/all"'))
        refused = batchrunner("run", job)

    assert [run["run"].rpartition("/")[2] for run in runs] == ["region=eu", "region=us"]
    assert [run["now"]["sent"] for run in runs] == [5, 5]
    assert refused.code == 2
    assert "parameter 'region' is used in input.where but not here" in refused.err


def test_a_typo_in_the_filter_costs_nothing(tmp_path):
    write_day(tmp_path, "2026-11-20")
    with counting() as server:
        ended = batchrunner("run", write_job(tmp_path, server.url, "regoin = 'eu'"))
        asked = server.books().asked.total()

    assert ended.code == 2
    assert "input.where: no column 'regoin'; did you mean 'region'?" in ended.err
    assert asked == 0


def test_standard_input_is_filtered_too(tmp_path):
    with counting() as server:
        words = ["--provider", "tess", "--agent-id", 1, "--base-url", server.url, "--rpm", "none"]
        more = ["--set", "provider.api_key=none", "--set", "input.where=n > 7", "--out", tmp_path / "run"]
        process = start("run", "-", *words, *more, stdin=-1)
        assert process.stdin
        process.stdin.write("".join(f'{{"id": {n}, "n": {n}, "prompt": "q{n}"}}\n' for n in range(10)))
        ended = finish(process)
        shown = batchrunner("export", tmp_path / "run", "--format", "csv")

    assert ended.code == 0, ended.err
    assert ended.table()["item_id"].to_list() == ["8", "9"]
    assert ended.table()["input_line"].to_list() == [9, 10]
    assert shown.out.count("\n") == 3


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_folder_of_an_empty_file_has_no_rows_whatever_the_job_reads(tmp_path, suffix):
    day = tmp_path / "lake" / "ds=2026-11-20"
    day.mkdir(parents=True)
    (day / f"part-0.{suffix}").write_bytes(gzip.compress(b"") if suffix.endswith("gz") else b"")
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "night"\n[input]\npath = "lake"\nwhere = "ds = \'2026-11-20\' and text != \'\'"\n'
        '[provider]\nkind = "openai"\n[request]\nmodel = "m"\nprompt = "{{ text }} of {{ ds }}"\n'
    )

    ended = batchrunner("run", job, "--simulate", cwd=tmp_path)

    assert ended.code == 0, ended.err
    assert "the input has no rows" in ended.err
    assert pl.read_parquet(tmp_path / ended.last_line).height == 0
