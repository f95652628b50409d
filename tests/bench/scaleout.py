"""What a second process is worth: two against one in one run, as plain shards of one lease and as workers of Ray.

.venv/bin/python tests/bench/scaleout.py
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from processes import batchrunner, rows_file
from servers import at_once, nginx
from tables import machine, show

if TYPE_CHECKING:
    from collections.abc import Callable

IN_FLIGHT = 100
"""For each process."""
LIMITED = ("--rpm", "60000000")
"""More than can be sent: the lease is taken all the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    print(machine("ray"))
    ways: list[tuple[str, Callable[[str, Path, int], tuple[float, float]]]] = [("--shard, --lease", shards)]
    if importlib.util.find_spec("ray") is not None:
        ways.append(("--engine ray", ray))
    rows = []
    with nginx(at_once("/")) as url:
        for name, way in ways:
            rounds = [
                (measured(way, url, asked.rows, 1), measured(way, url, asked.rows, 2)) for _ in range(asked.rounds)
            ]
            one, two = (median(round_[n][0] for round_ in rounds) for n in range(2))
            whole = [median(round_[n][1] for round_ in rounds) for n in range(2)]
            rows.append((name, one, two, median(r[1][0] / r[0][0] for r in rounds), *whole))
    head = ("", "1: requests/s", "2: requests/s", "2 / 1", "1: whole run (s)", "2: whole run (s)")
    show(f"{asked.rows:,} rows, {IN_FLIGHT} in flight for each process, the server on the same CPUs", head, rows)


def measured(
    way: Callable[[str, Path, int], tuple[float, float]], url: str, rows: int, workers: int
) -> tuple[float, float]:
    """Requests a second while they are sent, and the seconds from the command to its end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        return way(url, rows_file(folder, rows), workers)
    finally:
        shutil.rmtree(folder)


def shards(url: str, rows: Path, workers: int) -> tuple[float, float]:
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        ended = list(
            pool.map(
                lambda number: summary(
                    url, rows, workers, "--shard", f"{number}/{workers}", "--lease", str(rows.with_name("lease"))
                ),
                range(workers),
            )
        )
    return rate([each["now"] for each in ended]), time.monotonic() - began


def ray(url: str, rows: Path, workers: int) -> tuple[float, float]:
    began = time.monotonic()
    ended = summary(url, rows, workers, "--engine", "ray", "--workers", str(workers))
    return rate([shard["now"] for shard in ended["shards"]]), time.monotonic() - began


def rate(parts: list[dict[str, Any]]) -> float:
    return float(sum(part["sent"] for part in parts) / max(part["seconds"] for part in parts))


def summary(url: str, rows: Path, workers: int, *more: str) -> dict[str, Any]:
    options = ["--provider", "openai", "--model", "bench-1", "--base-url", url, *LIMITED, "--json", "--quiet"]
    command = batchrunner("run", rows, *options, "--concurrency", str(IN_FLIGHT * workers), *more)
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
