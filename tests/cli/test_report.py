"""`batchrunner report`: of runs that are at work, dead or finished; where its page may be written."""

from __future__ import annotations

import os
import signal
import stat
import time
from typing import TYPE_CHECKING

import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows
from report_runs import digest, failed, made, outcome

from batchrunner.assemble.ending import Ending, Items, commands
from batchrunner.cli.pages import Target
from batchrunner.errors import JobError
from batchrunner.report import document
from batchrunner.report.html import Html

if TYPE_CHECKING:
    from pathlib import Path

PAGE = b"<!doctype html>\nan earlier page"


class NoCharts:
    def draw(self, chart: object) -> dict[str, Html]:
        return {"wide": Html("<svg></svg>")}


def test_a_run_is_reported_with_its_failures(tmp_path: Path):
    run = made(tmp_path / "run", [*map(outcome, range(8)), failed(8), failed(9, "timeout")], rows=12)

    ended = batchrunner("report", run)

    assert ended.code == 0, ended.err
    assert "succeeded       8  66.7 %" in ended.out
    assert "timeout" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_what_is_no_run_is_refused(tmp_path: Path):
    assert batchrunner("report", tmp_path).code == 10


def test_the_page_is_written_whole_and_as_private_as_the_results(tmp_path: Path):
    target = tmp_path / "page.html"
    target.write_bytes(PAGE)
    target.chmod(0o666)

    Target.checked(str(target)).write(
        document(digest(made(tmp_path / "run", [outcome(0)], rows=1))),
        NoCharts(),  # type: ignore[arg-type]
        mode="0600",
    )

    assert target.read_bytes().startswith(b"<!doctype html>")
    assert target.read_bytes().endswith(b"</html>\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]


def test_a_link_stays_a_link(tmp_path: Path):
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "page.html")

    assert Target.checked(str(link)).path == tmp_path / "page.html"


@pytest.mark.parametrize("what", ["directory", "pipe", "table", "nowhere"])
def test_what_is_no_page_is_never_replaced(tmp_path: Path, what: str):
    place = tmp_path / ("no/where.html" if what == "nowhere" else what)
    if what == "directory":
        place.mkdir()
    if what == "pipe":
        os.mkfifo(place)
    if what == "table":
        place.write_bytes(b"PAR1 and much that was paid for")

    with pytest.raises(JobError, match=r"--html .*; (name|make|move)"):
        Target.checked(str(place))


def test_an_unwritable_page_is_refused_before_the_run_is_read(tmp_path: Path):
    """Before what draws its charts is loaded, too."""
    run = made(tmp_path / "run", [outcome(0)], rows=1)

    ended = batchrunner("report", run, "--html", tmp_path)

    assert ended.code == 2
    assert "no regular file" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_summary_of_a_run_names_the_commands_last():
    """The first one stays what is said to be next."""
    items = Items(total=3, succeeded=3, rejected=0, exhausted=0, length=0)
    nothing = Items(total=3, succeeded=0, rejected=0, exhausted=0, length=0)

    ready = commands(Ending(exit=0, reason="finished"), items, "runs/a b", "batchrunner run x")

    assert [*ready.items()][-2:] == [
        ("report", "batchrunner report 'runs/a b'"),
        ("page", "batchrunner report 'runs/a b' --html 'a b.html'"),
    ]
    assert next(iter(ready)) == "look"
    assert "report" not in commands(Ending(exit=12, reason="key"), nothing, "runs/x", "batchrunner run x")


@pytest.mark.slow
def test_a_run_at_work_and_a_killed_one_are_reported(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(400))
    with api(tmp_path / "api.log", latency=0.3) as server:
        process = start(*run_words(rows, server.url, "--out", tmp_path / "run", "--concurrency", 4))
        while not list((tmp_path / "run").glob("journal/*")) or len(server.seen()) < 20:
            time.sleep(0.1)
        live = batchrunner("report", tmp_path / "run")
        process.send_signal(signal.SIGKILL)
        finish(process)
        dead = batchrunner("report", tmp_path / "run")

    assert (live.code, dead.code) == (0, 0), (live.err, dead.err)
    assert "running (pid" in live.out
    assert "dead since" in dead.out
    assert "unfinished" in dead.out
    texts = digest(tmp_path / "run", texts=True).texts
    assert {f"user: Say p {row}" for row in texts} == {text.prompt for text in texts.values()}
    assert all(text.reply for text in texts.values())
