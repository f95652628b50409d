"""What need not be bought: answers of earlier nights, and rows that ask the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from counting_server import counting
from crash.moments import Moment
from driving import batchrunner, finish, prompts, start, write_rows

JOB = """
name = "tickets"
[params]
ds = ""
[input]
path = "{{{{ params.ds }}}}.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
agent_id = 1
[limits]
requests_per_minute = "none"
[output]
dir = "runs/tickets-{{{{ params.ds }}}}"
[reuse]
{reuse}
"""
NIGHTS = 'from = "runs/tickets-*"'


def write_job(folder: Path, url: str, reuse: str) -> Path:
    job = folder / "job.toml"
    job.write_text(JOB.format(url=url, reuse=reuse))
    return job


def test_the_second_night_buys_new_and_edited_rows_alone(tmp_path):
    first, edited = prompts(20), [{**row, "prompt": "Say it differently"} for row in prompts(2)]
    write_rows(tmp_path / "mon.jsonl", first)
    write_rows(tmp_path / "tue.jsonl", [*reversed(first[2:]), *edited, *prompts(5, prefix="new")])
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        monday = batchrunner("run", job, "--param", "ds=mon")
        planned = batchrunner("plan", job, "--param", "ds=tue")
        tuesday = batchrunner("run", job, "--param", "ds=tue", "--json")
        again = batchrunner("run", job, "--param", "ds=tue")
        asked = server.books().asked.total()

    assert [monday.code, tuesday.code, again.code] == [0, 0, 0], (tuesday.err, again.err)
    # The two edited ones ask the same, but nobody said dedupe.
    assert asked == 20 + 5 + 2
    assert "7 to buy" in planned.out
    assert "18 answers of earlier runs" in planned.out
    table = pl.read_parquet(tuesday.summary["results"]).sort("row")
    assert table["origin"].to_list() == ["reused"] * 18 + ["sent"] * 7
    assert [text.rpartition(" ")[0] for text in table["text"][:2]] == ["echo: Say p 19", "echo: Say p 18"]
    assert table["prompt_tokens"].null_count() == 0
    assert table["cost_usd"][:18].to_list() == [0.0] * 18
    assert tuesday.summary["items"]["succeeded"] == 25
    # What was copied was not used again.
    assert tuesday.summary["prompt_tokens"] == table["prompt_tokens"][18:].sum()


def test_rows_that_ask_the_same_are_sent_once(tmp_path):
    rows = [{"id": f"r{n}", "prompt": f"Say {n % 3}"} for n in range(12)]
    write_rows(tmp_path / "mon.jsonl", rows)
    with counting() as server:
        job = write_job(tmp_path, server.url, "dedupe = true")
        ended = batchrunner("run", job, "--param", "ds=mon", "--json")
        write_rows(tmp_path / "mon.jsonl", [*rows, {"id": "late", "prompt": "Say 1"}])
        more = batchrunner("run", job, "--param", "ds=mon", "--json")
        asked = server.books().asked

    assert [ended.code, more.code] == [0, 0], (ended.err, more.err)
    assert dict(asked) == {"Say 0": 1, "Say 1": 1, "Say 2": 1}
    table = pl.read_parquet(more.summary["results"])
    assert [text.rpartition(" ")[0] for text in table["text"]] == [
        *(f"echo: Say {n % 3}" for n in range(12)),
        "echo: Say 1",
    ]
    assert table["origin"].value_counts().sort("origin").rows() == [("duplicate", 10), ("sent", 3)]
    assert ended.summary["items"]["succeeded"] == 12
    assert more.summary["now"]["sent"] == 0


def test_what_is_bought_again_is_bought_once_for_all_that_ask_it(tmp_path):
    rows = [{"id": f"r{n}", "prompt": f"Say {n % 3}", "tone": "ab"[n % 2]} for n in range(12)]
    write_rows(tmp_path / "mon.jsonl", rows)
    with counting() as server:
        job = write_job(tmp_path, server.url, "dedupe = true")
        batchrunner("run", job, "--param", "ds=mon")
        run = tmp_path / "runs/tickets-mon"
        again = batchrunner("redo", run, "--where", "item_id != 'r0'")
        longer = batchrunner("redo", run, "--where", "true", "--set", "request.max_tokens=9")
        asked = server.books().asked

    assert [again.code, longer.code] == [0, 0], longer.err
    assert dict(asked) == {"Say 0": 3, "Say 1": 3, "Say 2": 3}
    table = pl.read_parquet(longer.last_line)
    assert table["status"].unique().to_list() == ["succeeded"]
    assert table["sent_changes"].unique().to_list() == ["request.max_tokens"]
    assert table["origin"].value_counts().sort("origin").rows() == [("duplicate", 9), ("sent", 3)]


def test_simulated_answers_are_never_taken_for_real_ones(tmp_path):
    write_rows(tmp_path / "mon.jsonl", prompts(4))
    write_rows(tmp_path / "tue.jsonl", prompts(4))
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        simulated = batchrunner("run", job, "--param", "ds=mon", "--simulate")
        real = batchrunner("run", job, "--param", "ds=tue")
        asked = server.books().asked.total()

    assert [simulated.code, real.code] == [0, 0], real.err
    assert asked == 4


@pytest.mark.slow
def test_killed_again_and_again_each_question_is_bought_about_once(tmp_path):
    rows = [{"id": f"r{n}", "prompt": f"Say {n % 50}"} for n in range(1_000)]
    write_rows(tmp_path / "mon.jsonl", rows)
    with counting(latency=0.2) as server:
        words = ["run", write_job(tmp_path, server.url, "dedupe = true"), "--param", "ds=mon", "--concurrency", "5"]
        for number in range(4):
            process = start(*words)
            Moment(10 * number + 5).wait(process, server)
            process.kill()
            finish(process)
        ended = batchrunner(*words, "--json")
        asked = server.books().asked

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert [text.rpartition(" ")[0] for text in table["text"]] == [f"echo: {row['prompt']}" for row in rows]
    assert asked.total() <= 50 + 4 * 5


@pytest.mark.parametrize(
    ("reuse", "said"),
    [
        ("frm = 'x'", "unknown key 'frm' in [reuse]; did you mean 'from'?"),
        ("from = 3", "reuse.from: expected the directory of an earlier run"),
        ("from = 's3://b/runs'", "reuse.from: expected directories of earlier runs, got s3://b/runs"),
    ],
)
def test_faults(tmp_path, reuse, said):
    write_rows(tmp_path / "mon.jsonl", prompts(1))
    job = write_job(tmp_path, "http://127.0.0.1:9", reuse)

    ended = batchrunner("run", job, "--param", "ds=mon")

    assert ended.code == 2
    assert said in ended.err


@pytest.mark.slow
def test_a_run_that_does_not_say_whether_it_was_simulated_gives_nothing(tmp_path):
    write_rows(tmp_path / "mon.jsonl", prompts(3))
    write_rows(tmp_path / "tue.jsonl", prompts(3))
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        monday = batchrunner("run", job, "--param", "ds=mon", "--simulate", "--json")
        (Path(monday.summary["run"]) / "run.json").unlink()
        tuesday = batchrunner("run", job, "--param", "ds=tue", "--json")
        asked = server.books().asked.total()

    assert tuesday.code == 0, tuesday.err
    assert asked == 3


@pytest.mark.slow
def test_a_plan_counts_on_nothing_of_a_run_that_cannot_be_read(tmp_path):
    write_rows(tmp_path / "mon.jsonl", prompts(3))
    write_rows(tmp_path / "tue.jsonl", prompts(3))
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        batchrunner("run", job, "--param", "ds=mon")
        for part in (tmp_path / "runs/tickets-mon/parts").iterdir():
            part.write_bytes(b"junk")
        planned = batchrunner("plan", job, "--param", "ds=tue")

    assert planned.code == 0, planned.err
    assert "3 to buy" in planned.out


def test_what_was_bought_again_is_what_the_next_night_takes_over(tmp_path):
    for night in ("n1", "n2", "n3"):
        write_rows(tmp_path / f"{night}.jsonl", prompts(1))
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        batchrunner("run", job, "--param", "ds=n1")
        batchrunner("run", job, "--param", "ds=n2")
        batchrunner("redo", job, "--param", "ds=n2", "--where", "true")
        second = pl.read_parquet(tmp_path / "runs/tickets-n2/results.parquet")
        third = batchrunner("run", job, "--param", "ds=n3")
        asked = server.books().asked.total()

    assert asked == 2
    taken = third.table()
    assert taken["origin"].to_list() == ["reused"]
    assert taken["response_id"].to_list() == second["response_id"].to_list()


def test_a_run_that_is_named_and_not_there_is_told(tmp_path):
    write_rows(tmp_path / "mon.jsonl", prompts(1))
    with counting() as server:
        job = write_job(tmp_path, server.url, 'from = ["runs/nope", "runs/tickets-*"]')
        ended = batchrunner("run", job, "--param", "ds=mon")

    assert ended.code == 0
    assert "reuse.from: runs/nope: no run there" in ended.err
    assert "tickets-*" not in ended.err


def test_a_name_that_ends_in_a_number_is_a_run_like_others(tmp_path):
    for night in ("2026.11.20", "2026.11.21"):
        write_rows(tmp_path / f"{night}.jsonl", prompts(3))
    with counting() as server:
        job = write_job(tmp_path, server.url, NIGHTS)
        codes = [batchrunner("run", job, "--param", f"ds={night}").code for night in ("2026.11.20", "2026.11.21")]
        asked = server.books().asked.total()

    assert (codes, asked) == ([0, 0], 3)
