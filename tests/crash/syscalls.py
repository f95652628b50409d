"""One small run under strace: which calls it makes on its files, and the same run with one of them made to fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING

from driving import COMMAND, Ended, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FILES = {
    "parent": r"\.\.",
    "run": r"\.",
    "folder": r"commits|journal|parts",
    "lock": r"lock",
    "log": r"log\.jsonl",
    "manifest": r"\.run\.json\.partial",
    "segment": r"journal/\.\d+\.log\.partial",
    "journal": r"journal/\d+\.log",
    "reserve": r"journal/\.reserve",
    "part": r"parts/\.\d+-\d+\.parquet\.partial",
    "carried": r"parts/\.carried-\d+\.parquet\.partial",
    "commit": r"commits/\.\d+\.json\.partial",
    "results": r"\.results\.parquet\.partial",
}
"""What the files of a run are called here; most are written under a name of their own, then given their real one."""

CALLS = (
    *("write", "writev", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "link", "linkat"),
)

FAULTS = {
    "kill": "signal=SIGKILL:when={nth}",
    "eio_once": "error=EIO:when={nth}",
    "eio_for_ever": "error=EIO:when={nth}+",
    "enospc_for_ever": "error=ENOSPC:when={nth}+",
    "enospc_twice": "error=ENOSPC:when={nth}..{next}",
    "lie": "retval=0:when={nth}",
}

_ENTERED = re.compile(r'^(\d+) +(\w+)\((?:\w+, |\d+<)?"?([^">]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to the system on a file of the run, as the run made it when nothing disturbed it."""

    place: int
    """Among all of them, from 0."""
    thread: str
    name: str
    path: str
    """From the run's directory."""

    @property
    def file(self) -> str:
        return next((file for file, path in FILES.items() if re.fullmatch(path, self.path)), f"unknown: {self.path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """How strace meets one call and no earlier one: it counts each thread's calls on these paths for itself."""

    call: Call
    paths: tuple[str, ...]
    nth: int


def traced(words: Sequence[object], run: Path, *, strace: str, timeout_s: float = 40.0) -> tuple[Ended, list[Call]]:
    """An undisturbed run, and its calls on the files in `run` in their order."""
    log = run.with_suffix(".strace")
    ended = _under([strace, "--seccomp-bpf"], ["-e", f"trace={_known(CALLS)}"], log, words, timeout_s)
    return ended, _calls(log.read_text(), run)


def disturbed(
    words: Sequence[object], run: Path, aim: Aim, fault: str, *, strace: str, timeout_s: float = 40.0
) -> tuple[Ended, int]:
    """The run with a fault at one of its calls, and how many calls it struck."""
    log, name = run.with_suffix(".strace"), aim.call.name
    inject = f"inject={name}:{FAULTS[fault].format(nth=aim.nth, next=aim.nth + 1)}"
    places = [word for path in aim.paths for word in ("-P", os.path.normpath(run / path))]
    # Under seccomp-bpf, which is twice as fast, strace 6.1 takes a signal to inject and never sends it.
    fast = [] if fault == "kill" else ["--seccomp-bpf"]
    ended = _under([strace, *fast], [*places, "-e", f"trace={name}", "-e", inject], log, words, timeout_s)
    if fault == "kill":
        return ended, int(ended.code == -signal.SIGKILL)
    return ended, log.read_text().count("(INJECTED)")


def named(calls: Iterable[Call]) -> dict[tuple[str, str], list[Call]]:
    """The calls by file and name, such as `commit` and `link`."""
    found: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        found.setdefault((call.file, call.name), []).append(call)
    return found


def aims_at(file: str, name: str, calls: Sequence[Call], *, for_ever: bool) -> list[Aim]:
    """Every call of this name on this file, in order, that strace can tell from the earlier ones.

    For ever takes in the next numbers of a numbered file too, which the run would try instead.
    """
    same = [call for call in calls if call.name == name]
    found = [(call, _told_apart(call, same)) for call in same if call.file == file]
    return [
        Aim(call=call, paths=(*paths, *(_siblings(call.path) if for_ever else ())), nth=nth)
        for call, (paths, nth) in found
        if nth
    ]


def _told_apart(call: Call, same: Sequence[Call]) -> tuple[tuple[str, ...], int]:
    """Paths, the call's own and up to two others, among which no thread but its own comes to its number before it."""
    others = sorted({one.path for one in same} - {call.path})
    for more in chain.from_iterable(combinations(others, size) for size in range(3)):
        nth = _nth(call, same, {call.path, *more})
        if nth:
            return (call.path, *more), nth
    return (), 0


def _nth(call: Call, same: Sequence[Call], paths: set[str]) -> int:
    """The call's number in its thread among those on these paths; 0 when another thread's had it before."""
    count: Counter[str] = Counter()
    for one in same:
        if one.path in paths:
            count[one.thread] += 1
        if one == call:
            break
    nth = count.pop(call.thread)
    return nth if all(others < nth for others in count.values()) else 0


def _siblings(path: str) -> list[str]:
    """The next numbers of a numbered file, a segment's also while they are begun."""
    found = re.search(r"\d{6}(?=\.(json|log))", path)
    if found is None:
        return []
    later = [f"{int(found[0]) + more:06d}" for more in range(1, 30)]
    begun = [f"journal/.{number}.log.partial" for number in later if path.startswith("journal/0")]
    return [f"{path[: found.start()]}{number}{path[found.end() :]}" for number in later] + begun


def _under(
    strace: Sequence[str], options: Sequence[str], log: Path, words: Sequence[object], timeout_s: float
) -> Ended:
    command = [*strace, "-f", "-qq", "-y", "-o", str(log), *options, *COMMAND, *map(str, words)]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"hung for {timeout_s:g} s: {' '.join(command)}\n{out}\n{err}") from None
    return Ended(code=process.returncode, out=out, err=err)


def _known(names: Iterable[str]) -> str:
    """With a question mark: not every machine has every call."""
    return ",".join(f"?{name}" for name in names)


def _calls(log: str, run: Path) -> list[Call]:
    calls: list[Call] = []
    for line in log.splitlines():
        found = _ENTERED.match(line)
        if found is not None and found[3].startswith("/"):
            path = os.path.relpath(found[3], run)
            if path == ".." or not path.startswith(".."):
                calls.append(Call(place=len(calls), thread=found[1], name=found[2], path=path))
    return calls
