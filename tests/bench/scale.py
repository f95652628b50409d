"""Memory and time by the number of rows: a whole run, and the resume of one that was killed near its end.

    .venv/bin/python tests/bench/scale.py                # 100,000 and 1,000,000 rows
    .venv/bin/python tests/bench/scale.py --rows 10000000 --no-runs

A run is the command as users run it, against nginx that answers at once. For the resume the settled outcomes are put
into a run directory by the store itself, as if they had been sent, all but the last 1,000; then the same command is
run again: what is measured is the time from its start to its first request, and its size at that moment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import batchrunner, measured, rows_file
from servers import ANSWER, at_once, nginx
from tables import machine, show

from batchrunner.records import Outcome
from batchrunner.store import open_run
from batchrunner.store.run import entry

LEFT = 1_000
BATCH = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, action="append", help="how many rows (may be repeated)")
    parser.add_argument("--no-runs", action="store_true", help="only the resume")
    parser.add_argument(
        "--folder", type=Path, help="where the runs are made and thrown away; the system's, unless told"
    )
    asked = parser.parse_args()
    sizes = asked.rows or [100_000, 1_000_000]
    print(machine("pyarrow", "httptools"))
    head = (
        "rows",
        "seconds",
        "peak RSS (MB)",
        "first request after (s)",
        "RSS then (MB)",
        "to the end (s)",
        "peak (MB)",
    )
    rows = []
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=asked.folder))
        folder.chmod(0o755)
        try:
            whole = (None, None) if asked.no_runs else whole_run(folder, size)
            rows.append((f"{size:,}", *whole, *resumed(folder, size)))
        finally:
            shutil.rmtree(folder)
    show("By the number of rows: a whole run, and the resume of one with 1,000 rows left", head, rows)


def command(folder: Path, rows: int, url: str, *more: str) -> list[str | Path]:
    options = ["--provider", "openai", "--model", "bench-1", "--base-url", url, "--rpm", "none", "--quiet"]
    runs = ["--runs-dir", folder / "runs", "--concurrency", "100"]
    return batchrunner("run", rows_file(folder, rows), *options, *runs, *more)


def whole_run(folder: Path, rows: int) -> tuple[float, float]:
    with nginx(at_once("/"), cpu=0) as url:
        used = measured(command(folder, rows, url), cpu=1)
    shutil.rmtree(folder / "runs")
    return used.wall_s, used.peak_mb


def resumed(folder: Path, rows: int) -> tuple[float, float, float, float]:
    log = folder / "requests.log"
    locations = at_once("/") + f"access_log {log} time buffer=4k flush=10ms;"
    with nginx(locations, http="log_format time '$msec';", cpu=0) as url:
        measured(command(folder, rows, url, "--limit", "1"), cpu=1)
        settle(folder / "runs" / f"rows-{rows}", rows)
        log.write_text("")
        began = time.time()
        process = subprocess.Popen(
            [str(part) for part in command(folder, rows, url)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OPENAI_API_KEY": "none"},
        )
        while not log.stat().st_size and process.poll() is None:
            time.sleep(0.005)
        size_mb = high_water_mb(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.time()
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the resume ended with {os.waitstatus_to_exitcode(status)}")
    first = float(log.read_text().split("\n", 1)[0])
    return first - began, size_mb, ended - began, usage.ru_maxrss / 1024


def settle(directory: Path, rows: int) -> None:
    """Outcomes for all rows but the first, which has one, and the last ones."""
    with open_run(directory) as run:
        run.begin()
        for start in range(1, rows - LEFT, BATCH):
            run.write([entry(outcome(row)) for row in range(start, min(start + BATCH, rows - LEFT))])
            if run.ripe:
                run.seal()
        run.sync()


def outcome(row: int) -> Outcome:
    return Outcome(
        item_id=f"t{row}",
        row=row,
        input_file="rows.jsonl",
        input_line=row + 1,
        status="succeeded",
        text=f"ticket {row}: billing, urgent",
        finish_reason="stop",
        provider="openai",
        model="bench-1",
        response_id="chatcmpl-8f2a6c1b9d",
        prompt_tokens=42,
        completion_tokens=31,
        total_tokens=73,
        origin="sent",
        attempts=1,
        http_status=200,
        started_at=1_764_000_000_000_000 + row,
        finished_at=1_764_000_000_500_000 + row,
        latency_s=0.5,
        first_token_s=0.5,
        request_key=f"{row:032x}",
        response=ANSWER,
    )


def high_water_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
