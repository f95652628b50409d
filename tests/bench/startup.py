"""What it costs to begin: CPU seconds of commands that have next to nothing to do.

.venv/bin/python tests/bench/startup.py
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

from processes import batchrunner, measured, rows_file
from servers import at_once, nginx
from tables import machine, show


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(machine("polars", "pyarrow", "aiohttp", "httptools"))
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    found: dict[str, list[float]] = {}
    try:
        with nginx(at_once("/"), cpu=0) as url:
            for number in range(asked.rounds):
                rows, runs = rows_file(folder, 1), folder / str(number)
                options = ["--provider", "openai", "--model", "bench-1", "--base-url", url, "--runs-dir", runs]
                commands = {
                    "run, one row": batchrunner("run", rows, *options, "--quiet"),
                    "run again, nothing to do": batchrunner("run", rows, *options, "--quiet"),
                    "plan": batchrunner("plan", rows, *options),
                    "status": batchrunner("status", runs / "rows-1"),
                    "--help": batchrunner("--help"),
                }
                for name, command in commands.items():
                    found.setdefault(name, []).append(measured(command, cpu=1).cpu_s)
    finally:
        shutil.rmtree(folder)
    rows = [
        (name, median(seconds), *(("<= 1.2", "0.6") if name == "run, one row" else ("", "")))
        for name, seconds in found.items()
    ]
    show("CPU seconds", ("", "measured", "must", "aim"), rows)


if __name__ == "__main__":
    main()
