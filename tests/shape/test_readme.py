"""The README tells the same story as the program."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from driving import batchrunner

from batchrunner import spec
from batchrunner.schema import RECORD

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_shows_the_real_help():
    shown = batchrunner("run", "--help", env={"COLUMNS": "100"}).out

    assert shown.strip() in README


def test_it_lists_the_providers_as_they_are():
    for line in batchrunner("providers", "--json").out.splitlines():
        facts = json.loads(line)
        row = f"| {facts['name']} | `{facts['endpoint']}` | {facts['key_variable']} |"
        assert row in README


def test_it_names_every_results_column():
    table = README[README.index("## Output") : README.index("## Providers")]

    assert [name for name in RECORD.names if not re.search(rf"\b{name}\b", table)] == []


def test_its_job_file_is_valid_and_complete(tmp_path):
    text, *_ = blocks("toml")
    job = tmp_path / "job.toml"
    job.write_text(text)

    loaded = spec.load(job, params={"ds": "2026-11-20"})

    document = tomllib.loads(text)
    sections = (
        "input",
        "provider",
        "limits",
        "retry",
        "timeouts",
        "budget",
        "output",
        "expect",
        "reuse",
        "storage",
        "telemetry",
    )
    for section in sections:
        known = {field.alias or name for name, field in type(getattr(loaded, section)).model_fields.items()}
        # Two ways to sign in exclude each other: one of them is a comment.
        assert known - set(document[section]) - {"oauth2"} == set(), section
    assert "oauth2 = {" in text


def test_what_it_names_as_proof_is_there():
    named = set(re.findall(r"tests/[a-z]+(?:/[a-z_]+\.py)?", README))

    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_it_names_every_exit_status():
    table = README[README.index("## Exit status") :]

    for code in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 129, 130, 143):
        assert re.search(rf"^\|[^|]*\b{code}\b", table, re.MULTILINE), code


def test_its_commands_are_those_of_the_project():
    commands = "\n".join(blocks("sh"))

    assert "batchrunner run jobs/quickstart.toml --simulate" in commands
    assert "tests/check" in commands
    assert (ROOT / "tests" / "check").stat().st_mode & 0o111
    assert "tests/check" in (ROOT / ".ci" / "run").read_text()


JOBS = [
    pytest.param(path, id=path.stem, marks=() if path.stem == "quickstart" else pytest.mark.slow)
    for path in sorted((ROOT / "jobs").glob("*.toml"))
]


@pytest.mark.parametrize("job", JOBS)
def test_every_job_file_runs(job, tmp_path):
    words: list[object] = []
    if job.stem == "prompt_judge":  # Reads the results of another job's run.
        given = ["--simulate", "--limit", 20, "--rpm", "none", "--out", tmp_path / "matrix"]
        first = batchrunner("run", job.with_name("prompt_matrix.toml"), *given)
        words = ["--set", f"input.path={first.last_line}"]
    ended = batchrunner(
        "run", job, "--simulate", "--limit", 20, "--rpm", "none", "--out", tmp_path / "run", "--json", *words
    )

    assert ended.code == 0, ended.err
    assert ended.summary["items"]["succeeded"] == 20


def test_its_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    body = "".join(f"    {line}\n" for line in code.splitlines())
    scope: dict[str, Any] = {}
    exec(f"async def main():\n{body}", scope)

    asyncio.run(scope["main"]())

    assert "a succeeded" in capsys.readouterr().out
