"""--notify: a command of the user's hears how every invocation ended, and changes nothing about it."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driving import COMMAND, batchrunner, environment, finish, prompts, start, write_rows

NOTED = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"


def python(code: str, *words: object) -> str:
    return shlex.join([sys.executable, "-c", code, *map(str, words)])


def words(tmp_path: Path, *more: object) -> list[object]:
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2))
    return ["run", rows, "--provider", "tess", "--agent-id", 1, "--simulate", "--rpm", "none", *more]


def heard(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]


def until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_it_gets_the_summary_and_its_output_goes_before_the_last_line(tmp_path):
    noisy = python(f"{NOTED}; print('out of it'); print('err of it', file=sys.stderr)", tmp_path / "noted")

    ended = batchrunner(*words(tmp_path, "--json", "--notify", noisy))

    assert ended.code == 0, ended.err
    assert heard(tmp_path) == [ended.summary]
    assert "out of it" not in ended.out
    assert "out of it" in ended.err
    assert "err of it" in ended.err


def test_one_that_fails_is_one_line_and_changes_no_exit_code(tmp_path):
    run = tmp_path / "run"

    ended = batchrunner(*words(tmp_path, "--out", run, "--quiet", "--notify", "/no/such/program --token t0ken"))

    assert ended.code == 0
    said = "notify: '/no/such/program' could not be started: no such file or directory"
    assert ended.err == f"batchrunner: {said}\n"
    assert Path(ended.last_line).exists()
    log = Path(f"{run}.simulated/log.jsonl").read_text()
    assert json.loads(log.splitlines()[-1]) | {"event": "notify_failed", "error": said} == json.loads(
        log.splitlines()[-1]
    )
    assert "t0ken" not in log


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--no-such-option"], 2),
        pytest.param(["--rpm", "fast"], 2, marks=pytest.mark.slow),
        pytest.param(["--shard", "9/3"], 2, marks=pytest.mark.slow),
        (["--out", "{tmp_path}/taken"], 10),
    ],
)
def test_an_invocation_that_never_began_is_told_too(tmp_path, more, code):
    (tmp_path / "taken.simulated").write_text("not a directory")
    told = python(NOTED, tmp_path / "noted")
    said = [word.format(tmp_path=tmp_path) for word in more]

    ended = batchrunner(*words(tmp_path, *said, "--json", "--notify", told))
    again = batchrunner(*words(tmp_path, *said), env={"BATCHRUNNER_NOTIFY": told})

    assert (ended.code, again.code) == (code, code), ended.err
    first, second = heard(tmp_path)
    assert first == second == ended.summary
    assert first["type"] == "fatal"
    assert first["exit"] == code
    assert again.out == ""


@pytest.mark.slow
@pytest.mark.slow
def test_the_job_names_it_and_the_flag_wins(tmp_path):
    write_rows(tmp_path / "rows.jsonl", prompts(1))
    job = tmp_path / "job.toml"
    job.write_text(
        f"input.path = 'rows.jsonl'\nprovider.kind = 'tess'\nrequest.agent_id = 1\n"
        f'telemetry.notify = """{python(NOTED, tmp_path / "noted")}"""\n'
    )

    by_job = batchrunner("run", job, "--simulate", "--json")
    by_flag = batchrunner("run", job, "--simulate", "--json", "--notify", python(NOTED, tmp_path / "other"))
    redone = batchrunner("redo", tmp_path / "runs/job.simulated", "--where", "true", "--simulate", "--json")

    assert heard(tmp_path) == [by_job.summary, redone.summary]
    assert json.loads((tmp_path / "other").read_text()) == by_flag.summary
    assert str(tmp_path / "noted") not in (tmp_path / "runs/job.simulated/run.json").read_text()


def test_a_fault_of_the_job_reaches_the_command_that_the_job_names(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(
        f"input.path = 'nothing.jsonl'\nprovider.kind = 'tess'\nrequest.agent_id = 1\n"
        f'telemetry.notify = """{python(NOTED, tmp_path / "noted")}"""\n'
    )

    ended = batchrunner("run", job, "--simulate")

    (told,) = heard(tmp_path)
    assert ended.code == told["exit"] == 2
    assert told["name"] == "job"


@pytest.mark.slow
def test_a_command_that_cannot_be_read_is_a_fault_that_does_not_repeat_it(tmp_path):
    ended = batchrunner(*words(tmp_path, "--notify", "curl 'https://hooks.example.com/t0ken"))

    assert ended.code == 2
    assert "--notify: expected a command" in ended.err
    assert "t0ken" not in ended.err


def test_commands_that_do_not_know_it_run_none(tmp_path):
    told = {"BATCHRUNNER_NOTIFY": python(NOTED, tmp_path / "noted")}

    ended = batchrunner("merge", tmp_path / "nothing", "--json", env=told)

    assert ended.code == ended.summary["exit"] == 10
    assert not (tmp_path / "noted").exists()


@pytest.mark.slow
@pytest.mark.slow
def test_the_second_signal_ends_it_too(tmp_path):
    hangs = python("import os, sys, time; open(sys.argv[1], 'w').write('x'); time.sleep(60)", tmp_path / "noted")
    process = start(*words(tmp_path, "--quiet", "--notify", hangs))
    until(tmp_path / "noted")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    ended = finish(process)

    assert ended.code == 0
    assert "was given up for a signal" in ended.err
    assert ended.last_line.endswith("results.parquet")


@pytest.mark.slow
@pytest.mark.slow
def test_with_all_streams_closed_it_still_gets_the_summary(tmp_path):
    told = python(f"{NOTED}; print('to nobody')", tmp_path / "noted")
    line = shlex.join([*COMMAND, *map(str, words(tmp_path, "--notify", told))])

    done = subprocess.run(["sh", "-c", f"exec {line} <&- >&- 2>&-"], env=environment(), timeout=50, check=False)

    assert done.returncode == 0
    assert heard(tmp_path)[0]["exit"] == 0


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_that_somebody_else_holds_is_told_and_left_alone(tmp_path):
    command = words(tmp_path, "--notify", python(NOTED, tmp_path / "noted"), "--json")
    command[command.index("--rpm") + 1] = "60"
    holder = start(*command)
    until(tmp_path / "runs" / "rows.simulated" / "run.json")

    second = batchrunner(*command)
    holder.send_signal(signal.SIGTERM)
    finish(holder)

    first, last = heard(tmp_path)
    assert second.code == first["exit"] == 11
    assert first["retryable"]
    assert first["next"]
    assert last["exit"] in (0, 143)
