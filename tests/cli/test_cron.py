"""The README's crontab line under what cron gives a job: no profile, no terminal, no HOME, streams that are closed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import Api, api, prompts, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text()
PLACE = "/srv/enrichment"
CRON = ["env", "-i", "SHELL=/bin/sh", "PATH=/usr/bin:/bin", "LOGNAME=batch"]


def the_line(home: Path) -> str:
    """What cron hands to the shell, with our directory in the place of the README's."""
    (block,) = re.findall(r"```crontab\n(.*?)\n```", README, re.DOTALL)
    when, command = re.fullmatch(r"((?:\S+ ){5})(.+)", block).groups()  # type: ignore[union-attr]
    assert when == "15 1 * * * "
    assert not re.search(r"(?<!\\)%", command), "cron ends a command at a bare %"
    assert set(re.findall(r"/[a-z]+/[a-z]+", command)) - {PLACE} <= {"/bin/batchrunner"}
    return command.replace("\\%", "%").replace(PLACE, str(home))


class Night:
    """A machine whose crontab has the line."""

    def __init__(self, home: Path, url: str, *, rows: int) -> None:
        self.home, self.line = home, the_line(home)
        # Of two days, lest a test that begins before midnight and ends after it find no rows.
        days = {time.strftime("%F", time.localtime(time.time() + later)) for later in (0, 60)}
        for day in days:
            write_rows(home / f"rows-{day}.jsonl", prompts(rows))
        (home / ".venv").symlink_to(sys.prefix)
        (home / "env").write_text("TESS_API_KEY=from-the-file\n")
        (home / "env").chmod(0o600)
        (home / "nightly.toml").write_text(
            f"""
            params.ds = ""
            input.path = "rows-{{{{ params.ds }}}}.jsonl"
            provider = {{ kind = "tess", base_url = "{url}" }}
            request.agent_id = 8794
            limits = {{ requests_per_minute = "none", concurrency = 4 }}
            output.dir = "runs/{{{{ params.ds }}}}"
            """
        )

    def start(self, line: str | None = None) -> subprocess.Popen[bytes]:
        """As cron starts it, but harsher: its own session, and all three streams closed."""
        closing = 'exec <&- >&- 2>&-; exec /bin/sh -c "$0"'
        return subprocess.Popen([*CRON, "/bin/sh", "-c", closing, line or self.line], cwd="/", start_new_session=True)

    def run(self) -> Path:
        (found,) = (self.home / "runs").iterdir()
        return found

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run() / "run.json").read_text())
        return found

    def wait_for_sending(self) -> None:
        deadline = time.monotonic() + 20
        while not list(self.home.glob("runs/*/run.json")) or not self.state()["now"]["sent"]:
            assert time.monotonic() < deadline, (self.home / "nightly.log").read_text()
            time.sleep(0.05)


@pytest.fixture
def tess(tmp_path: Path) -> Iterator[Api]:
    with api(tmp_path / "api.jsonl", latency=0.1) as found:
        yield found


def test_the_crontab_line_does_its_work_and_leaves_code_log_and_results(tmp_path: Path, tess: Api):
    night = Night(tmp_path, tess.url, rows=8)

    assert night.start().wait(30) == 0, (tmp_path / "nightly.log").read_text()

    log = (tmp_path / "nightly.log").read_text().splitlines()
    assert log[0] == f"new run {night.run()}"
    assert log[-1] == str(night.run() / "results.parquet")
    assert pl.read_parquet(log[-1])["status"].to_list() == ["succeeded"] * 8
    events = [json.loads(line)["event"] for line in (night.run() / "log.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("run_started", "run_ended")
    assert "from-the-file" not in "".join(log)


@pytest.mark.slow
def test_a_sigterm_to_the_group_drains_and_the_next_start_buys_the_rest(tmp_path: Path, tess: Api):
    night = Night(tmp_path, tess.url, rows=80)
    first = night.start()
    night.wait_for_sending()

    os.killpg(first.pid, signal.SIGTERM)

    assert first.wait(30) in (143, -signal.SIGTERM)  # The latter where the shell stayed in between.
    deadline = time.monotonic() + 10
    while night.state()["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (night.state()["state"], night.state()["exit"]) == ("drained", 143)
    assert night.start().wait(30) == 0
    assert tess.answered().total() == 80
    assert set(tess.answered().values()) == {1}
    assert pl.read_parquet(night.run() / "results.parquet")["row"].to_list() == list(range(80))


@pytest.mark.slow
def test_of_two_starts_at_once_one_works_and_the_other_is_told(tmp_path: Path, tess: Api):
    night = Night(tmp_path, tess.url, rows=80)

    starts = [night.start(), night.start()]

    assert sorted(start.wait(30) for start in starts) == [0, 11]
    assert "is in use by pid" in (tmp_path / "nightly.log").read_text()
    assert set(tess.answered().values()) == {1}


@pytest.mark.slow
def test_closed_streams_are_no_ones_files(tmp_path: Path, tess: Api):
    night = Night(tmp_path, tess.url, rows=80)
    start = night.start("exec " + night.line.removesuffix(f" >> {tmp_path}/nightly.log 2>&1"))
    night.wait_for_sending()

    streams = [os.readlink(f"/proc/{start.pid}/fd/{number}") for number in range(3)]  # noqa: PTH115

    assert streams == [os.devnull] * 3
    assert start.wait(30) == 0
    assert pl.read_parquet(night.run() / "results.parquet")["status"].to_list() == ["succeeded"] * 80
