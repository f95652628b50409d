"""What a request costs the client: CPU time of the whole process, user and system, against a bare aiohttp loop.

    .venv/bin/python tests/bench/cost.py

Everything runs against one nginx on one CPU, clients on another, taking turns. A process's cost per request is the
slope between a short and a long run of it, so that no start-up counts. Figures are medians of the rounds, ratios are
of the medians. `batchrunner` is the command as users run it, with journal, parts and results.parquet; what of it is
durability is seen beside `in-memory`, which holds all outcomes and writes one Parquet file at the end. Peers are
measured when they are installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from processes import HERE, batchrunner, measured, rows_file
from servers import after, at_once, nginx
from tables import machine, show, version

SERVER_CPU, CLIENT_CPU = 0, 1
LEVELS = {"100, answered at once": (100, None), "100": (100, 0.025), "500": (500, 0.125), "1000": (1000, 0.25)}
"""How many are in flight and how long each is answered after: as many in a second at each level."""
SLOW_PEERS = {"openai": 10, "litellm": 20}
"""They are given this many times fewer requests."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000, help="by which the long run is longer")
    parser.add_argument("--only", action="append", help="a contestant (may be repeated)")
    parser.add_argument("--level", action="append", choices=list(LEVELS), help="in flight (may be repeated)")
    asked = parser.parse_args()
    print(machine("aiohttp", "httptools", "uvloop", "openai", "litellm"))
    names = asked.only or contestants()
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    levels = {level: LEVELS[level] for level in asked.level or LEVELS}
    locations = at_once("/now/") + "".join(
        after(f"/after{number}/", seconds) for number, (_, seconds) in enumerate(levels.values()) if seconds
    )
    with nginx(locations, cpu=SERVER_CPU) as url:
        for _ in range(asked.rounds):
            for number, (level, (in_flight, seconds)) in enumerate(levels.items()):
                where = f"{url}/after{number}" if seconds else f"{url}/now"
                for name in names:
                    cpu_us, per_s = slope(name, where, in_flight, asked.requests // SLOW_PEERS.get(name, 1))
                    costs[level, name].append(cpu_us)
                    rates[level, name].append(per_s)
    told = {key: median(found) for key, found in costs.items()}
    for level in levels:
        bare = told.get((level, "bare"))
        rows = [
            (name, told[level, name], told[level, name] / bare if bare else None, median(rates[level, name]))
            for name in names
        ]
        show(f"{level} in flight", ("", "CPU µs/request", "× bare aiohttp", "requests/s"), rows)
    summary(told)


def contestants() -> list[str]:
    return ["bare", "bare-uvloop", "batchrunner", "in-memory", *(name for name in SLOW_PEERS if version(name))]


def slope(name: str, url: str, in_flight: int, requests: int) -> tuple[float, float]:
    """CPU µs per request, and requests per second."""
    few = max(1_000, 2 * in_flight)
    short, long = (used(name, url, in_flight, count) for count in (few, few + requests))
    return (long[0] - short[0]) / requests * 1e6, requests / max(long[1] - short[1], 1e-3)


def used(name: str, url: str, in_flight: int, requests: int) -> tuple[float, float]:
    if name not in ("batchrunner", "in-memory"):
        found = measured([sys.executable, HERE / "loops.py", name, url, str(requests), str(in_flight)], cpu=CLIENT_CPU)
        return found.cpu_s, found.wall_s
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        options = ["--provider", "openai", "--model", "bench-1", "--base-url", url, "--rpm", "none", "--quiet"]
        arguments = ["run", rows_file(folder, requests), *options, "--concurrency", str(in_flight)]
        command = batchrunner() if name == "batchrunner" else [sys.executable, HERE / "loops.py", name]
        found = measured([*command, *arguments], cpu=CLIENT_CPU)
        return found.cpu_s, found.wall_s
    finally:
        shutil.rmtree(folder)


def summary(told: dict[tuple[str, str], float]) -> None:
    def ratio(over: tuple[str, str], under: tuple[str, str]) -> float | None:
        return told[over] / told[under] if over in told and under in told else None

    worst = max(filter(None, (ratio((level, "batchrunner"), (level, "bare")) for level in LEVELS)), default=None)
    kept = ratio(("100", "in-memory"), ("100", "batchrunner"))
    rows = [
        ("batchrunner / bare aiohttp loop, the worst level", worst, "<= 2.0", "1.25"),
        (
            "batchrunner, 1,000 in flight / 100",
            ratio(("1000", "batchrunner"), ("100", "batchrunner")),
            "<= 1.3",
            "1.15",
        ),
        (
            "AsyncOpenAI with a semaphore / batchrunner, 100",
            ratio(("100", "openai"), ("100", "batchrunner")),
            ">= 8",
            "16",
        ),
        ("durability's share of batchrunner's, 100", None if kept is None else 1 - kept, "<= 0.20", "0.12"),
    ]
    show("Ratios", ("", "measured", "must", "aim"), rows)


if __name__ == "__main__":
    main()
