"""10,000 requests in flight against a server that answers after 2 s: are all answered, how late, at what size.

.venv/bin/python tests/bench/crowd.py
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

import polars as pl
from processes import batchrunner, measured, rows_file
from servers import after, nginx
from tables import machine, show


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="after which each is answered")
    asked = parser.parse_args()
    print(machine("httptools", "uvloop"))
    with nginx(after("/", asked.seconds), cpu=0) as url:
        rounds = [crowd(url, asked.rows, asked.in_flight) for _ in range(asked.rounds)]
    answered, p50_s, p99_s, peak_mb, wall_s = (median(column) for column in zip(*rounds, strict=True))
    rows = [
        ("answered", f"{answered:,.0f} of {asked.rows:,}", "all", ""),
        ("latency p50 (s)", p50_s, "", ""),
        ("latency p99 / the server's", p99_s / asked.seconds, "<= 1.5", ""),
        ("peak RSS (MB)", peak_mb, "<= 450", "300"),
        ("whole run (s)", wall_s, "", ""),
    ]
    show(f"{asked.in_flight:,} in flight", ("", "measured", "must", "aim"), rows)


def crowd(url: str, rows: int, in_flight: int) -> tuple[float, float, float, float, float]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        options = ["--provider", "openai", "--model", "bench-1", "--base-url", url, "--rpm", "none", "--quiet"]
        command = batchrunner("run", rows_file(folder, rows), *options, "--concurrency", str(in_flight))
        used = measured(command, cpu=1)
        results = pl.read_parquet(used.printed.strip().splitlines()[-1])
        latency = results["latency_s"]
        succeeded = results.filter(pl.col("status") == "succeeded").height
        p50, p99 = latency.quantile(0.5) or 0.0, latency.quantile(0.99) or 0.0
        return succeeded, p50, p99, used.peak_mb, used.wall_s
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
