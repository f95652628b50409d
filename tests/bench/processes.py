"""Commands as measured processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servers import pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Used:
    """What a process took."""

    cpu_s: float
    """User and system, of all its threads."""
    wall_s: float
    peak_mb: float
    printed: str


def measured(command: Sequence[str | Path], *, cpu: int | None = None, folder: Path | None = None) -> Used:
    """Run a command to its end; a failure ends the benchmark with what it said."""
    environ = {**os.environ, "OPENAI_API_KEY": "none", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    began = time.monotonic()
    process = subprocess.Popen(
        [*pinned(cpu), *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environ,
        text=True,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{printed}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Used(usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak, printed)


def batchrunner(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "batchrunner", *arguments]


def rows_file(folder: Path, rows: int) -> Path:
    """A file of so many prompts."""
    path = folder / f"rows-{rows}.jsonl"
    if not path.exists():
        with path.open("w") as file:
            for number in range(rows):
                prompt = f"Classify ticket {number}: I was charged twice for one order and want my money back."
                file.write(f'{{"id":"t{number}","prompt":"{prompt}"}}\n')
    return path
