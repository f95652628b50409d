"""Each call that a run makes on its files, killed, refused or lied to; then the same command again, undisturbed.

strace does it to the real process. The calls are those of two small runs: a new one, and one that resumes a killed
one whose input has grown.
"""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pytest
from crash.syscalls import FAULTS, Aim, Call, aims_at, disturbed, named, traced
from driving import batchrunner, prompts, run_words, write_rows
from faulty_server import serve_in_thread
from real.needs import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from driving import Ended
    from faulty_server import FaultyServer

ROWS, IN_FLIGHT = 24, 4
SEED = 13
WHEN = ["started_at", "finished_at", "latency_s", "first_token_s"]

NEW = {
    "parent": "fsync",
    "run": "fsync+",
    "folder": "fsync+",
    "lock": "ftruncate pwrite64",
    "log": "write+",
    "manifest": "fdatasync+ rename+ write+",
    "segment": "fdatasync link write",
    "journal": "fdatasync+ write+",
    "reserve": "fallocate",
    "part": "fdatasync link write",
    "commit": "fdatasync+ link+ write+",
    "results": "fdatasync rename write+",
}
RESUMED = {
    "run": "fsync+",
    "folder": "fsync+",
    "lock": "ftruncate pwrite64",
    "log": "write+",
    "manifest": "fdatasync+ rename+ write+",
    "segment": "fdatasync link write",
    "journal": "fdatasync+ write+",
    "reserve": "fallocate",
    "part": "fdatasync+ link+ write+",
    "carried": "fdatasync link write",
    "commit": "fdatasync+ link+ write+",
    "results": "fdatasync rename write+",
}
"""By file, the calls on it in an undisturbed run; with a `+` those that are made more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    run: str
    file: str
    call: str
    which: int
    fault: str

    def __str__(self) -> str:
        return f"{self.run}-{self.file}-{self.call}-{'last' if self.which else 'first'}-{self.fault}"


def cases(run: str, calls: dict[str, str], *files: str) -> list[Case]:
    return [
        Case(run=run, file=file, call=call.rstrip("+"), which=which, fault=fault)
        for file in files or calls
        for call in calls[file].split()
        for which in ((0, -1) if call.endswith("+") else (0,))
        for fault in FAULTS
        if fault != "lie" or call.startswith(("rename", "link"))
        if fault != "enospc_twice" or file in {"journal", "part", "commit"}
    ]


ALL = [*cases("new", NEW), *cases("resumed", RESUMED, "folder", "segment", "part", "carried", "commit")]
"""Of the run that resumes: what it does otherwise than a new one."""


def sample(seed: int) -> list[Case]:
    """One case of each kind."""
    chance, kinds = random.Random(seed), ("kill", "eio_once", "enospc_twice", "lie")
    return [chance.choice([case for case in cases("new", NEW) if case.fault == kind]) for kind in kinds]


@dataclass(kw_only=True)
class Ground:
    """Two runs that nothing disturbed, and where to do them again."""

    strace: str
    server: FaultyServer
    folder: Path
    calls: dict[str, list[Call]]
    tables: dict[str, pl.DataFrame]
    sent: dict[str, int]

    def words(self, run: Path) -> Sequence[object]:
        rows = self.folder / "rows.jsonl"
        return run_words(rows, self.server.url, "--concurrency", IN_FLIGHT, "--disk-wait", "2s", "--out", run)

    def begin(self, name: str, run: Path) -> Path:
        """The directory as the run finds it."""
        self.server.seen.clear()
        run.parent.mkdir(parents=True, exist_ok=True)
        if name == "resumed":
            shutil.copytree(self.folder / "killed", run)
        return run

    def learn(self, name: str) -> None:
        if name in self.calls:
            return
        run = self.begin(name, self.folder / name)
        ended, self.calls[name] = traced(self.words(run), run, strace=self.strace)
        assert ended.code == 0, ended.err
        self.tables[name], self.sent[name] = table_of(run), len(self.server.seen)

    def leave_killed(self) -> None:
        """A run of half the rows, killed with some outcomes in its journal; then the other half is added."""
        rows, run = self.folder / "rows.jsonl", self.folder / "killed"
        write_rows(rows, prompts(ROWS // 2))
        append = Call(place=0, thread="", name="write", path="journal/000001.log")
        aim = Aim(call=append, paths=(append.path,), nth=4)
        ended, struck = disturbed(self.words(run), run, aim, "kill", strace=self.strace)
        assert struck, ended
        write_rows(rows, prompts(ROWS))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    strace = shutil.which("strace")
    if strace is None:
        lacking("strace", "apt-get install strace")
    with serve_in_thread() as server:
        server.latency_s = 0.03
        folder = tmp_path_factory.mktemp("calls")
        write_rows(folder / "rows.jsonl", prompts(ROWS))
        yield Ground(strace=strace, server=server, folder=folder, calls={}, tables={}, sent={})


@pytest.fixture(scope="module")
def both(ground: Ground) -> Ground:
    ground.leave_killed()
    ground.learn("new")
    ground.learn("resumed")
    return ground


def table_of(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "results.parquet").drop(WHEN)


def told(calls: Sequence[Call]) -> dict[str, str]:
    """The calls as the tables above have them."""
    found: dict[str, list[str]] = {}
    for (file, call), same in sorted(named(calls).items()):
        found.setdefault(file, []).append(call + "+" * (len(same) > 1))
    return {file: " ".join(names) for file, names in found.items()}


def disturb(ground: Ground, case: Case, folder: Path) -> tuple[Path, Aim, Ended]:
    """Do the run with the case's fault. How often the journal is written differs a little from run to run."""
    aims = aims_at(case.file, case.call, ground.calls[case.run], for_ever=case.fault.endswith("for_ever"))
    for nth, aim in enumerate((aims[case.which], aims[case.which // 2], aims[len(aims) // 2])):
        run = ground.begin(case.run, folder / f"{nth}" / "run")
        ended, struck = disturbed(ground.words(run), run, aim, case.fault, strace=ground.strace)
        if struck:
            return run, aim, ended
        assert ended.code == 0, ended.err
    raise AssertionError(f"{case}: the run never came to that call")


def exits(case: Case, aim: Aim, calls: Sequence[Call]) -> set[int]:
    """How the run may end."""
    if case.fault == "kill":
        return {-signal.SIGKILL}
    full = case.fault.startswith("enospc")
    if case.file == "log" or aim.call.place > in_place(calls):
        return {0}
    if case.file == "reserve":
        return {16} if full else {0}  # A disk too full for the reserve is too full to begin.
    if case.file == "manifest" and full:
        return {0}  # Whether a disk is full, the journal decides.
    if in_journal(aim) and not case.fault.endswith("for_ever"):
        return {0}
    if aim.call.place < start_of_sending(calls):
        return {10, 16}
    return {0} if case.fault == "enospc_twice" else {16}  # There is room again in time.


def in_journal(aim: Aim) -> bool:
    return aim.call.path.startswith("journal")


def may_be_sent_again(case: Case, aim: Aim) -> int:
    """What was in flight: its answers had nowhere to go. Whatever else fails, nothing that was answered is lost."""
    return IN_FLIGHT if case.fault == "kill" or (in_journal(aim) and case.fault.endswith("for_ever")) else 0


def start_of_sending(calls: Sequence[Call]) -> int:
    return next(call.place for call in calls if call.file in {"log", "manifest"})


def in_place(calls: Sequence[Call]) -> int:
    """The sync of the directory behind the rename of the results: from then on exit 0 is true."""
    return 1 + next(call.place for call in calls if call.file == "results" and call.name.startswith("rename"))


def check(ground: Ground, case: Case, folder: Path) -> None:
    """Disturb a run, see that its end is true, do it again, and see that nothing is missing or was bought twice."""
    run, aim, ended = disturb(ground, case, folder)
    sent, calls = len(ground.server.seen), ground.calls[case.run]
    said = " ".join(ended.err.split())
    assert ended.code in exits(case, aim, calls), ended
    assert "Traceback" not in said
    if ended.code == 0:
        assert table_of(run).equals(ground.tables[case.run])
    if ended.code in (10, 16):
        assert "then give the same command again" in said or " go on batchrunner run " in said
        # Without its reserve a run begins, and stops as soon as the writer finds the disk full.
        assert not sent or aim.call.place >= start_of_sending(calls) or case.file == "reserve"

    again = batchrunner(*ground.words(run))

    repeated = len(ground.server.seen) - ground.sent[case.run]
    assert again.code == 0, (str(case), ended, again)
    assert table_of(run).equals(ground.tables[case.run])
    assert repeated <= may_be_sent_again(case, aim)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_few_calls_that_fail_lose_nothing(ground, tmp_path):
    ground.learn("new")

    for case in sample(SEED):
        check(ground, case, tmp_path / str(case))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_nothing_is_lost_whatever_call_fails(both, tmp_path, case):
    check(both, case, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_these_are_the_calls_of_a_run(both):
    """So that a new file, or a new call on an old one, gets its cases."""
    assert told(both.calls["new"]) == dict(sorted(NEW.items()))
    assert told(both.calls["resumed"]) == dict(sorted(RESUMED.items()))
