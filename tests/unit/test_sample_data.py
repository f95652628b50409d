"""The sample data is what its script makes, and the job files ask it something that can be sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import providers, spec, templates
from batchrunner.cli.run import command
from batchrunner.providers import conversation
from batchrunner.records import Endpoint

if TYPE_CHECKING:
    from batchrunner.records import Request
    from batchrunner.spec import JobSpec

ROOT = Path(__file__).parents[2]
JOBS, SAMPLES = ROOT / "jobs", ROOT / "sample_data"
JUDGE = "prompt_judge.toml"
"""Reads the results of another job's run."""
JOB_FILES = sorted(path.name for path in JOBS.glob("*.toml"))
DATA_JOBS = ["follow_up.toml", "nightly_enrichment.toml", "prompt_eval.toml", "prompt_matrix.toml"]


def table(name: str) -> pa.Table:
    return pq.read_table(SAMPLES / f"{name}.parquet")


def json_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / "prompts.jsonl").read_bytes().splitlines()]


def prompt_about(topic: str) -> str:
    (prompt,) = [row["prompt"] for row in json_lines() if row["topic"] == topic]
    return str(prompt)


def rows_of(job: JobSpec) -> list[dict[str, Any]]:
    path = job.base / str(job.input.path)
    return json_lines() if path.suffix == ".jsonl" else pq.read_table(path).to_pylist()


def requests(job: JobSpec) -> list[Request]:
    """What the job sends for every row. Raises BadRow for one that cannot be asked."""
    rows, provider = rows_of(job), providers.load(str(job.provider.kind))
    columns = {name for row in rows for name in row}
    asker = templates.compile_request(job.request, params=job.params, base=job.base, columns=columns, matrix=job.matrix)
    endpoint = Endpoint(base_url=str(provider.base_url))
    ways = [{"variant": variant, "repeat": 1} for variant in job.matrix.choices] if job.matrix else [{}]
    return [conversation.build(provider, asker.ask(row | way), endpoint) for row in rows for way in ways]


def said(request: Request) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = json.loads(request.body)["messages"]
    return messages


@pytest.fixture(scope="module")
def made_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "sample_data"
    subprocess.run([sys.executable, JOBS / "make_sample_data.py", directory], check=True)
    return directory


def test_the_script_makes_the_same_json_lines_to_the_byte(made_again: Path):
    assert (made_again / "prompts.jsonl").read_bytes() == (SAMPLES / "prompts.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["prompts", "tickets"])
def test_the_script_makes_the_same_tables(made_again: Path, name: str):
    assert pq.read_table(made_again / f"{name}.parquet").equals(table(name), check_metadata=True)


def test_the_script_makes_every_file_there_is(made_again: Path):
    assert {path.name for path in SAMPLES.iterdir()} == {path.name for path in made_again.iterdir()}


def test_the_sample_data_stays_under_a_megabyte():
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 1_000_000


def test_both_prompt_files_hold_the_same_fifty_rows():
    told = [{name: value for name, value in row.items() if value is not None} for row in table("prompts").to_pylist()]

    assert told == json_lines()
    assert len({row["id"] for row in told}) == 50


def test_prompts_come_in_many_languages_for_several_agents():
    rows = json_lines()

    assert {"pt", "es", "en", "ja", "ar", "hi", "de", "fr", "zh", "sw"} <= {row["language"] for row in rows}
    assert {row["agent_id"] for row in rows} == {8794, 8795, 8801}
    assert any("messages" in row for row in rows)
    assert any("system" in row for row in rows)
    assert any("temperature" in row for row in rows)


def test_some_prompts_are_odd():
    prompts = [row["prompt"] for row in json_lines() if "prompt" in row]

    assert 7_500 < max(len(prompt.encode()) for prompt in prompts) < 9_000
    assert min(map(len, prompts)) == 1
    assert {"\u2028", "\u2029", "\u0085"} <= set(prompt_about("line separators"))
    assert "\u2067" in prompt_about("mixed direction")
    assert "\u200d" in prompt_about("emoji")


def test_the_expected_answer_of_the_long_prompt_is_the_only_one():
    cities = re.findall(r"^\d+, (\w+), [1-9]", prompt_about("long input"), re.MULTILINE)
    (row,) = [row for row in json_lines() if row["topic"] == "long input"]

    counts = {city: cities.count(city) for city in cities}

    assert [city for city, count in counts.items() if count == max(counts.values())] == [row["expected"]]


def test_there_are_a_thousand_tickets_and_no_copies():
    tickets = table("tickets").to_pylist()

    assert [row["ticket_id"] for row in tickets] == [f"T-{number:06}" for number in range(1, 1001)]
    assert len({row["body"] for row in tickets}) == 1000
    assert [row["created_at"] for row in tickets] == sorted(row["created_at"] for row in tickets)


def test_tickets_have_the_quirks_of_real_ones():
    tickets = table("tickets")
    bodies = tickets["body"].to_pylist()

    assert all(body.strip() for body in bodies)
    assert not any(re.search(r"[{}]", body) for body in bodies)
    assert 100 < tickets["priority"].null_count < 500
    assert sum(tickets[name].null_count for name in tickets.column_names if name != "priority") == 0
    assert len(tickets["language"].unique()) == 6
    assert all(any(mark in body for body in bodies) for mark in ("<p>", "<code>", "\r\n", "\n> ", "Sent from my"))


def test_these_are_all_jobs():
    assert sorted([*DATA_JOBS, "quickstart.toml", JUDGE]) == JOB_FILES


@pytest.mark.parametrize("name", [name for name in JOB_FILES if name != JUDGE])
def test_a_job_can_be_sent_for_every_row(name: str):
    job = spec.load(JOBS / name)

    sent = requests(job)

    assert len(sent) == len(rows_of(job)) * len(job.matrix.choices)
    assert len({request.key for request in sent}) == len(sent)


@pytest.mark.parametrize("name", JOB_FILES)
def test_a_job_keeps_its_runs_out_of_the_jobs_directory(name: str):
    directory = spec.run_dir(spec.load(JOBS / name)).resolve()

    assert directory.parent == ROOT / "runs"


@pytest.mark.parametrize("name", DATA_JOBS)
def test_a_job_keeps_columns_that_its_rows_have(name: str):
    job = spec.load(JOBS / name)

    assert set(job.output.keep or ()) <= set(rows_of(job)[0])


def test_the_quickstart_asks_the_same_of_both_prompt_files():
    of_json_lines = spec.load(JOBS / "quickstart.toml")
    of_parquet = spec.load(JOBS / "quickstart.toml", overrides={"input.path": "../sample_data/prompts.parquet"})

    assert [request.key for request in requests(of_json_lines)] == [request.key for request in requests(of_parquet)]


def test_what_looks_like_a_template_is_sent_as_it_is():
    prompt = prompt_about("looks like a template")

    for name in ("quickstart.toml", "prompt_eval.toml"):
        assert [said(request)[-1]["content"] for request in requests(spec.load(JOBS / name))].count(prompt) == 1


def test_the_evaluation_asks_conversations_and_system_texts_too():
    asked = [said(request)[-1]["content"] for request in requests(spec.load(JOBS / "prompt_eval.toml"))]

    assert [text for text in asked if text.endswith("\n\nuser: What colour did I order? One word.")] == []
    assert [text for text in asked if text.endswith("\nuser: What colour did I order? One word.")] != []
    assert [text for text in asked if text.startswith("You label customer messages.")] != []


def test_a_ticket_without_priority_says_so():
    asked = [said(request)[-1]["content"] for request in requests(spec.load(JOBS / "nightly_enrichment.toml"))]

    without = [text for text in asked if "Priority set by the customer: none\n" in text]

    assert len(without) == table("tickets")["priority"].null_count


def test_every_day_has_a_run_of_its_own():
    days = [spec.load(JOBS / "nightly_enrichment.toml", params={"ds": ds}) for ds in ("2026-11-20", "2026-11-21")]

    assert [spec.run_dir(job).name for job in days] == [f"nightly-enrichment-2026-11-2{day}" for day in (0, 1)]


def cron_lines() -> list[str]:
    lines = (JOBS / "crontab.example").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"[0-9*]", line)]


def test_cron_lines_escape_their_percent_signs():
    assert len(cron_lines()) == 2
    assert [line for line in cron_lines() if re.search(r"(?<!\\)%", line)] == []


def test_cron_lines_name_a_job_and_options_that_exist():
    known = {option for parameter in command.params for option in parameter.opts}

    for line in cron_lines():
        assert set(re.findall(r" (--[a-z-]+)", line)) <= known
        assert [name for name in JOB_FILES if f"/jobs/{name} " in line] == ["nightly_enrichment.toml"]
