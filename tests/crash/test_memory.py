"""Memory: a run of many rows needs hardly more than one of few."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from counting_server import counting
from driving import COMMAND, environment, run_words

FEW = 20_000
MANY = int(os.environ.get("MEMORY_ROWS", "100000"))
MOST_MB = 300
SPREAD_MB = 30
BYTES_PER_ROW = 64
"""What is known of every row, mostly while the results are made: 176 MB for 20,000 rows, 231 MB for 1,000,000."""


@pytest.mark.slow
@pytest.mark.timeout(60 + MANY // 200)
def test_memory_does_not_grow_with_rows(tmp_path):
    """Most replies are short, one in a hundred is of 200 kB."""
    few, many = (peak_mb(tmp_path, count) for count in (FEW, MANY))

    assert many - few < SPREAD_MB + (MANY - FEW) * BYTES_PER_ROW / 1e6
    assert many < MOST_MB


def peak_mb(tmp_path: Path, count: int) -> float:
    """The most memory that a run of so many rows ever held."""
    source, out = tmp_path / f"{count}.jsonl", tmp_path / f"run-{count}"
    with source.open("w") as file:
        file.writelines(f'{{"id":"p{n}","prompt":"Say p {n}"}}\n' for n in range(count))
    with counting(large=0.01, large_bytes=200_000) as server:
        words = run_words(source, server.url, "--concurrency", 100, "--out", out, "--quiet")
        began = time.monotonic()
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        peak = 0.0
        while process.poll() is None:
            peak = high_water_mb(process.pid) or peak
            time.sleep(0.02)
        seconds = time.monotonic() - began
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{count:,} rows: {peak:.0f} MB at the peak, {seconds:.0f} s, {size / 1e6:,.0f} MB in the run directory")
    assert process.returncode == 0
    return peak


def high_water_mb(pid: int) -> float | None:
    """Not by getrusage: that counts in what the parent held when it started the child."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else None
