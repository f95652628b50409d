"""A command that hears how an invocation ended: told, bounded, and gone afterwards."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchrunner.signals import ENDING, Signals
from batchrunner.telemetry import notify

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = repr(sys.executable)


def python(code: str, *words: object) -> str:
    return shlex.join([sys.executable, "-S", "-c", code, *map(str, words)])


@pytest.fixture
def signals() -> Iterator[Signals]:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield Signals().install()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_it_is_given_one_line_whatever_the_summary_holds(tmp_path, signals):
    code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    summary = {"reason": "größer\nthan \ud83d a pipe" + "x" * 200_000}

    assert notify(python(code, tmp_path / "told"), summary, signals=signals) is None

    told = (tmp_path / "told").read_bytes()
    assert told.count(b"\n") == 1
    assert told.endswith(b"}\n")
    assert "größer".encode() in told


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/no/such --token t0ken", "notify: '/no/such' could not be started: no such file or directory"),
        (python("import sys; sys.exit(3)"), f"notify: {NAME} ended with 3"),
        (python("import os; os.kill(os.getpid(), 9)"), f"notify: {NAME} was ended by signal 9"),
        (python("import time; time.sleep(60)"), f"notify: {NAME} took longer than 0.3 s and was ended"),
    ],
)
def test_what_goes_wrong_is_said_without_the_arguments(signals, command, said):
    assert notify(command, {}, signals=signals, longest_s=0.3) == said


def test_one_that_does_not_read_is_none_the_worse(signals):
    assert notify("true", {"reason": "x" * 200_000}, signals=signals) is None


def test_what_it_leaves_running_ends_with_it(tmp_path, signals):
    code = "import subprocess, sys; open(sys.argv[1], 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"

    assert (
        notify(
            python(f"import warnings; warnings.simplefilter('ignore'); {code}", tmp_path / "pid"), {}, signals=signals
        )
        is None
    )

    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("before", "during", "given_up"), [(0, 1, False), (0, 2, True), (1, 1, True), (2, 0, False)])
def test_the_second_signal_of_all_ends_it(signals, before, during, given_up):
    signals.heard += [signal.SIGTERM] * before
    timers = [threading.Timer(0.15 + 0.1 * n, os.kill, (os.getpid(), signal.SIGTERM)) for n in range(during)]
    for timer in timers:
        timer.start()

    said = notify("sleep 0.5", {}, signals=signals)

    assert (said == "notify: 'sleep' was given up for a signal") is given_up


def _lives(pid: int) -> bool:
    """A zombie waits for whoever adopted it, and does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
