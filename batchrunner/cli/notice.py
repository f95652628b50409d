"""What `main` knows of a `run` or `redo`, for the word on how it ended: also of one that failed early."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrunner.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.telemetry import MetricsFile

ENDINGS_TOLD, NOTIFIED = ("run", "redo", "merge"), ("run", "redo")
"""Commands whose last line with --json is an object also when they fail, and those that know --notify."""
LOCKED = 11
"""Somebody else is at it, and says how it goes."""
HELPS = (11, 14, 15, 16, 129, 130, 143)
"""Exit codes of fatal ends after which the same command gets further."""


@dataclass(slots=True, kw_only=True)
class Notice:
    """Filled in as the command line, then the job are read."""

    words: Sequence[str]
    signals: Signals = field(default_factory=Signals)
    command: str | None = None
    """Who is to be told: what --notify says."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The name and the run of the summary, once they are known."""
    again: str | None = None
    """The command that goes on."""
    metrics: MetricsFile | None = None

    def __post_init__(self) -> None:
        if self.words and self.words[0] in NOTIFIED:
            self.command = _asked(self.words) or os.environ.get("BATCHRUNNER_NOTIFY") or None

    def fatal(self, code: int, reason: str) -> int:
        """Tell of an end without a summary: --notify, and with --json the last line. Returns the code."""
        if self.words and self.words[0] in ENDINGS_TOLD:
            retry = code in HELPS
            ending = {"exit": code, "reason": reason, "retryable": retry, "next": self.again if retry else None}
            summary = {"type": "fatal", **self.about, **ending}
            if self.metrics is not None and code != LOCKED:
                self.metrics.write(summary)
            self.send(summary)
            if "--json" in self.words:
                with contextlib.suppress(OSError):
                    click.echo(json.dumps(summary))
        return code

    def send(self, summary: Mapping[str, Any]) -> None:
        """Give --notify the summary. A failure is said once, and logged where the run was ours."""
        command, self.command = self.command, None
        if command is None:
            return
        from batchrunner.telemetry import notify, run_log

        trouble = notify(command, summary, signals=self.signals.install())
        if trouble is None:
            return
        say(trouble)
        if "items" in summary and "://" not in summary["run"]:
            with run_log(Path(summary["run"]) / "log.jsonl", redact=str) as emit:
                emit("notify_failed", error=trouble)


def say(text: str) -> None:
    """Put `text` on stderr, every line with our name in front."""
    from batchrunner.console.text import clean

    for line in text.splitlines():
        with contextlib.suppress(OSError, ValueError):
            click.echo(f"batchrunner: {clean(line)}", err=True)


def _asked(words: Sequence[str]) -> str | None:
    """What --notify says, also on a command line that cannot be read otherwise."""
    found = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == "--":
            break
        if word == "--notify":
            found = following
        elif word.startswith("--notify="):
            found = word.partition("=")[2]
    return found or None
