"""When a signal reaches a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from counting_server import Counting


@dataclass(frozen=True, slots=True)
class Moment:
    """So many seconds after so many questions have had an answer; at once where the process has ended before."""

    answered: int
    seconds: float = 0.0

    def wait(self, process: subprocess.Popen[str], server: Counting) -> None:
        while server.answered() < self.answered and process.poll() is None:
            time.sleep(0.003)
        time.sleep(self.seconds)


def wait_until_it_hears(process: subprocess.Popen[str], number: int) -> None:
    """Until the process catches the signal: before that, it has only loaded Python."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught, 16) >> (number - 1) & 1:
            return
        time.sleep(0.002)
