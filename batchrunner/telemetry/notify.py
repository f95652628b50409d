"""A command of the user's that hears how an invocation ended."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.signals import Signals

LONGEST_S = 30.0
HURRY = 2
"""The signal that ends the command too, counted over the whole invocation."""


def notify(command: str, summary: Mapping[str, Any], *, signals: Signals, longest_s: float = LONGEST_S) -> str | None:
    """Run `command` without a shell, the summary as one line of JSON on its standard input. None: it ended well.

    What it prints goes to our standard error. Whatever goes wrong with it is a sentence and ends nothing. What it
    leaves running ends with it, so that nothing can be printed behind our last line.
    """
    line = json.dumps(summary, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    patience = max(len(signals.heard), HURRY - 1)
    children: list[subprocess.Popen[bytes]] = []

    def hear() -> None:
        if len(signals.heard) > patience:
            for child in children:
                _kill(child)

    with signals.listening(hear):
        try:
            child = _started(shlex.split(command))
        except (OSError, ValueError) as error:
            return f"notify: {_program(command)} could not be started: {_why(error)}"
        children.append(child)
        hear()
        told = _told(child, line, longest_s)
    if len(signals.heard) > patience:
        told = "was given up for a signal"
    return None if told is None else f"notify: {_program(command)} {told}"


def _started(words: list[str]) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C at the terminal is meant for the run."""
    error = _stderr()
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=error, stderr=error, start_new_session=True)


def _told(child: subprocess.Popen[bytes], line: bytes, longest_s: float) -> str | None:
    """Give the child its line and wait for its end. Says what was wrong with it."""
    try:
        child.communicate(line, timeout=longest_s)
    except subprocess.TimeoutExpired:
        _kill(child)
        child.communicate()
        return f"took longer than {longest_s:g} s and was ended"
    _kill(child)
    if child.returncode < 0:
        return f"was ended by signal {-child.returncode}"
    return f"ended with {child.returncode}" if child.returncode else None


def _program(command: str) -> str:
    """The name alone: an argument may be an address with a token in it."""
    with contextlib.suppress(ValueError):
        return repr(shlex.split(command)[0])
    return "the command"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _stderr() -> int:
    """Ours, if whoever started us left us one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stderr.fileno()
    return subprocess.DEVNULL


def _why(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said[:1].lower() + said[1:]
