"""Every row in every variant, several times: what is sent, who the items are, what a changed matrix buys."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import orjson
import polars as pl
import pytest
from counting_server import counting
from driving import batchrunner, write_rows

from batchrunner import JobError, plan, run

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
name = "eval"
[input]
path = "cases.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
temperature = 0
[matrix]
agent_id = [7, "nine"]
{more}
prompt = {{ short = "S: {{{{ question }}}}", long = "file:long.md" }}
[limits]
requests_per_minute = "none"
"""


def write_job(folder: Path, url: str, more: str = "repeats = 2", **changes: str) -> Path:
    (folder / "long.md").write_text("Long: {{ question }}")
    text = JOB.format(url=url, more=more)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    job = folder / "job.toml"
    job.write_text(text)
    return job


def write_cases(folder: Path, count: int = 3) -> None:
    write_rows(folder / "cases.jsonl", [{"id": f"c{number}", "question": f"q{number}"} for number in range(count)])


def test_every_row_is_asked_in_every_variant_so_many_times(tmp_path):
    write_cases(tmp_path)
    with counting() as server:
        ended = batchrunner("run", write_job(tmp_path, server.url))
        planned = batchrunner("plan", tmp_path / "job.toml", "--json").summary
        asked = server.books().asked

    assert ended.code == 0, ended.err
    table = ended.table()
    assert table.height == 3 * 4 * 2
    assert sum(asked.values()) == table.height
    assert sorted(Counter(asked.values()).items()) == [(4, 6)]
    assert table["row"].to_list() == [*range(24)]
    assert table["item_id"].to_list()[:9] == [
        "c0/short+7/1", "c0/short+7/2", "c0/short+nine/1", "c0/short+nine/2",
        "c0/long+7/1", "c0/long+7/2", "c0/long+nine/1", "c0/long+nine/2", "c1/short+7/1",
    ]  # fmt: skip
    assert table["case_id"].to_list() == [f"c{number}" for number in range(3) for _ in range(8)]
    assert table["repeat"].to_list() == [1, 2] * 12
    assert table.schema["repeat"] == pl.Int64
    for row in table.iter_rows(named=True):
        prompt, _, agent = row["variant"].partition("+")
        assert row["agent_id"] == agent
        assert row["text"].startswith(f"echo: {'S' if prompt == 'short' else 'Long'}: q")
        assert row["item_id"] == f"{row['case_id']}/{row['variant']}/{row['repeat']}"
        assert row["input_line"] == int(row["case_id"][1:]) + 1
    assert table["request_key"].n_unique() == 24
    assert planned["items"] == {"total": 24, "settled": 24, "to_buy": 0}
    assert planned["matrix"] == {"variants": ["short+7", "short+nine", "long+7", "long+nine"], "repeats": 2}


def test_a_changed_matrix_buys_the_difference(tmp_path):
    write_cases(tmp_path)
    with counting() as server:
        first = batchrunner("run", write_job(tmp_path, server.url, "repeats = 1"))
        more_repeats = batchrunner("run", write_job(tmp_path, server.url, "repeats = 2"), "--json")
        more_agents = batchrunner(
            "run", write_job(tmp_path, server.url, "repeats = 2", **{'[7, "nine"]': '[5, 7, "nine"]'}), "--json"
        )
        fewer = batchrunner("run", write_job(tmp_path, server.url, "repeats = 1", **{'[7, "nine"]': "[5]"}), "--json")
        edited = write_job(tmp_path, server.url, "repeats = 1", **{'[7, "nine"]': "[5]", "S: ": "Short: "})
        changed = batchrunner("run", edited)
        anyway = batchrunner("run", edited, "--accept-change", "--json")

    assert [first.code, more_repeats.code, more_agents.code, fewer.code] == [0, 0, 0, 0], more_repeats.err
    assert [ended.summary["now"]["sent"] for ended in (more_repeats, more_agents, fewer)] == [12, 12, 0]
    assert fewer.summary["items"]["total"] == 6
    assert changed.code == 13
    assert "matrix.prompt.short" in changed.err
    assert "3 settled items" in changed.err
    assert (anyway.code, anyway.summary["now"]["sent"]) == (0, 3)


PLAIN = """
name = "eval"
[input]
path = "cases.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
{request}
[limits]
requests_per_minute = "none"
[matrix]
{matrix}
"""
SAY = "'Say {{ question }}'"


def test_a_job_that_becomes_a_matrix_or_gives_other_names_buys_the_difference(tmp_path):
    """What is bought is a question, whatever its item is called."""
    write_cases(tmp_path)
    job = tmp_path / "job.toml"
    lives = [
        (f"agent_id = 7\nprompt = {SAY}", "", 3),
        (f"agent_id = 7\nprompt = {SAY}", "repeats = 2", 3),
        (f"prompt = {SAY}", "agent_id = [7]\nrepeats = 2", 0),
        ("", f"agent_id = [7]\nrepeats = 2\nprompt = {{ a = {SAY}, b = 'Tell {{{{ question }}}}' }}", 6),
        ("", f"repeats = 2\nprompt = {{ aa = {SAY}, b = 'Tell {{{{ question }}}}' }}\nagent_id = [7]", 0),
        (f"agent_id = 7\nprompt = {SAY}", "", 0),
    ]
    sent, books = [], []
    with counting() as server:
        for request, matrix, _ in lives:
            job.write_text(PLAIN.format(url=server.url, request=request, matrix=matrix))
            books.append(plan(job)["items"]["to_buy"])
            ended = run(job)
            assert ended.ok, ended.summary
            sent.append(ended.summary["now"]["sent"])
            table = pl.read_parquet(ended.summary["results"])
            assert table["text"].null_count() == 0
        asked = server.books().asked.total()

    assert sent == books == [expected for _, _, expected in lives]
    assert asked == 12
    assert table["item_id"].to_list() == ["c0", "c1", "c2"]
    assert [text.split(" ")[2] for text in table["text"]] == ["q0", "q1", "q2"]


@pytest.mark.slow
def test_a_pilot_takes_whole_cases_and_shards_take_every_item_once(tmp_path):
    write_cases(tmp_path, 10)
    with counting() as server:
        job = write_job(tmp_path, server.url)
        pilot = batchrunner("run", job, "--limit", 16)
        first = pilot.table()
        rest = batchrunner("run", job, "--json")
        shards = [
            batchrunner("run", job, "--shard", f"{i}/3", "--out", tmp_path / "sharded", "--json") for i in (0, 1, 2)
        ]

    assert pilot.code == 0, pilot.err
    assert first["case_id"].unique().sort().to_list() == ["c0", "c1"]
    assert (rest.summary["now"]["sent"], rest.summary["items"]["total"]) == (64, 80)
    tables = [pl.read_parquet(shard.summary["results"]) for shard in shards]
    assert [shard.summary["items"]["total"] for shard in shards] == [table.height for table in tables]
    whole = pl.concat(tables).sort("row")
    assert whole["row"].to_list() == [*range(80)]
    assert whole["item_id"].n_unique() == 80


def test_repeats_are_never_folded_and_each_is_taken_over_once(tmp_path):
    write_cases(tmp_path, 2)
    twins = [{"id": "a", "question": "same"}, {"id": "b", "question": "same"}]
    with counting() as server:
        job = write_job(tmp_path, server.url, "repeats = 3", **{"[limits]": "[reuse]\ndedupe = true\n[limits]"})
        write_rows(tmp_path / "cases.jsonl", twins)
        ended = batchrunner("run", job, "--json")
        again = write_job(
            tmp_path,
            server.url,
            "repeats = 4",
            **{"[limits]": '[reuse]\nfrom = "runs/*"\n[limits]', '"eval"': '"later"'},
        )
        later = batchrunner("run", again, "--json")

    # Each of the twins' requests is sent once for each repeat, and copied to the other one.
    assert (ended.code, ended.summary["now"]["sent"]) == (0, 4 * 3), ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["origin"].value_counts().sort("origin").rows() == [("duplicate", 12), ("sent", 12)]
    assert later.code == 0, later.err
    assert later.summary["now"]["sent"] == 2 * 4


def test_rows_that_are_requests_are_asked_of_every_agent(tmp_path):
    rows = [{"id": "x", "prompt": "hi", "agent_id": 1, "topic": "t"}, {"id": "y", "prompt": "ho", "extra": {"a": 1}}]
    write_rows(tmp_path / "cases.jsonl", rows)
    (tmp_path / "job.toml").write_text("")
    with counting() as server:
        ended = batchrunner(
            "run", tmp_path / "cases.jsonl", "--provider", "tess", "--base-url", server.url,
            "--set", "matrix.agent_id=[7, 8]", "--set", 'matrix.extra={ a = { k = 1 }, b = { k = 2 } }',
            "--set", "provider.api_key=none", "--rpm", "none", "--out", tmp_path / "run",
        )  # fmt: skip

    assert ended.code == 0, ended.err
    table = ended.table()
    assert table["item_id"].to_list()[:4] == ["x/7+a/1", "x/7+b/1", "x/8+a/1", "x/8+b/1"]
    assert table["agent_id"].to_list() == ["7", "7", "8", "8"] * 2
    assert table["topic"].to_list() == ["t"] * 4 + [None] * 4
    shown = batchrunner("show", tmp_path / "run", "y/8+b/1", "--full").out
    assert orjson.loads(next(line for line in shown.splitlines() if line.startswith("{"))) == {
        "messages": [{"role": "user", "content": "ho"}], "a": 1, "k": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "rows", "said"),
    [
        ("repeat = 2", None, "unknown key 'repeat' in [matrix]; did you mean 'repeats'?"),
        ("repeats = 0", None, "matrix.repeats: expected a whole number above 0, got 0"),
        ("repeats = 9999", None, "39,996 items of every row are more than 10,000"),
        ("temperature = [0, 1]", None, "matrix.temperature: temperature stands in [request] too"),
        ("model = 'gpt'", None, "matrix.model: expected a list of values, or a table of them by name, got 'gpt'"),
        ("model = ['a/b', 'a_b']", None, "matrix.model: several values are called 'a_b'; name them in a table"),
        ("system = { x = 'file:no.md' }", None, "matrix.system.x: "),
        ("system = { x = '{{ qestion }}' }", None, "no column or parameter 'qestion'; did you mean 'question'?"),
        ("messages = { x = [{ role = 'user', content = 'x' }] }", None, "expected one of prompt, messages, turns"),
        ("system = { a = 'x', repeats = 3 }", None, "what stands behind [matrix.system] belongs to it; put 'repeats'"),
        ("", {"input_variant": "x"}, "matrix: the input has a column 'input_variant'"),
        ("max_tokens = [1, 2]", {"session_id": "x"}, None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_matrix_is_said_before_anything_is_sent(tmp_path, more, rows, said):
    write_cases(tmp_path)
    if rows:
        write_rows(tmp_path / "cases.jsonl", [{"id": "a", "question": "q", **rows}])
    job = write_job(tmp_path, "http://127.0.0.1:9", more)

    if said is None:
        assert plan(job)["items"]["to_buy"] > 0
        return
    with pytest.raises(JobError, match=re.escape(said)):
        plan(job)


def test_items_of_one_session_are_refused(tmp_path):
    write_cases(tmp_path)
    job = write_job(tmp_path, "http://127.0.0.1:9", **{"temperature = 0": 'conversation = "{{ question }}"'})

    with pytest.raises(JobError, match="matrix: expected rows on their own"):
        plan(job)


def test_with_a_system_prompt_and_without_one_is_a_comparison_too(tmp_path):
    write_cases(tmp_path, 1)
    with counting() as server:
        ended = batchrunner("run", write_job(tmp_path, server.url, 'system = { none = "", brief = "Be brief." }'))
        exported = batchrunner("export", tmp_path / "runs/eval", "--format", "openai-batch", "--to", tmp_path / "batch")

    assert (ended.code, exported.code) == (0, 0), ended.err
    lines = [orjson.loads(line) for line in (tmp_path / "batch/input.jsonl").read_bytes().splitlines()]
    roles = {line["custom_id"]: [message["role"] for message in line["body"]["messages"]] for line in lines}
    assert len(roles) == 8
    assert all(said == (["system", "user"] if "+brief" in name else ["user"]) for name, said in roles.items()), roles
