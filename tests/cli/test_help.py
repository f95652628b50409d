"""Help and usage errors answer at once, and say all that there is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from driving import COMMAND, batchrunner, environment

from batchrunner.cli import COMMANDS

HEAVY = ("polars", "pyarrow", "httpx", "aiohttp", "pydantic")


def imported(*words: str) -> tuple[str, set[str]]:
    """What a command prints, and which of the heavy packages it loads."""
    code = (
        f"import sys; sys.argv = ['batchrunner', *{list(words)!r}]\n"
        "from batchrunner.cli import main\n"
        "try: main()\n"
        f"finally: print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    return done.stdout + done.stderr, set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["rnu"], ["run"], ["run", "x", "--nope"]]
)
def test_help_and_usage_errors_load_nothing_heavy(words):
    _, loaded = imported(*words)

    assert loaded == set()


def test_help_costs_little_cpu():
    """Under 0.25 s; the best of three leaves out what the machine does beside."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=-3); "
        "used = resource.getrusage(-1); print(used.ru_utime + used.ru_stime)"
    )
    words = [sys.executable, "-c", code, *COMMAND, "run", "--help"]

    seconds = min(float(subprocess.check_output(words, env=environment())) for _ in range(3))

    assert seconds < 0.25


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name):
    ended = batchrunner(name, "--help")

    assert ended.code == 0
    assert "Examples:" in ended.out


def test_run_help_ends_with_the_exit_status():
    text = batchrunner("run", "--help").out

    for code in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17):
        assert f"\n  {code:>2}  " in text or f"  {code}  " in text
    assert "129, 130, 143" in text


def test_a_mistyped_command_is_answered_with_the_right_one():
    ended = batchrunner("statsu")

    assert ended.code == 2
    assert "did you mean 'status'?" in ended.err


def test_providers_tells_names_endpoints_and_keys():
    ended = batchrunner("providers", env={"TESS_API_KEY": "x"})

    for name in ("tess", "openai", "gateway", "opentools"):
        assert f"\n{name}" in f"\n{ended.out}"
    assert "TESS_API_KEY (set)" in ended.out
    assert "OPENAI_API_KEY (not set)" in ended.out


def test_init_writes_a_job_that_is_valid_and_never_overwrites(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hi"}\n')

    first, second = batchrunner("init", cwd=tmp_path), batchrunner("init", cwd=tmp_path)
    planned = batchrunner("plan", "job.toml", "--simulate", cwd=tmp_path)

    assert first.code == 0
    assert second.code == 2
    assert planned.code == 0, planned.err


def test_a_run_loads_polars_only_where_it_filters_or_searches(tmp_path):
    """It costs a tenth of a second and 23 MB, which a cron job pays every time."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": 1, "prompt": "x"}\n')
    words = ["run", str(rows), "--provider", "tess", "--agent-id", "1", "--simulate", "--out", str(tmp_path / "run")]

    _, plain = imported(*words)
    _, filtering = imported(*words, "--set", "input.where=id = 1")

    assert "polars" not in plain
    assert "polars" in filtering
