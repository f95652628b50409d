"""A process that is killed at any moment loses nothing that it was told is written, and doubles nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from batchrunner.store.opening import open_run
from batchrunner.store.view import view_run

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 10
ROWS = 1_000_000
BUY = """
import sys
from pathlib import Path
import anyio
from batchrunner.records import Outcome
from batchrunner.store import run as run_module
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch
from batchrunner.store.writer import Writer

run_module.SEAL_OUTCOMES = 200
rows = int(sys.argv[2])

async def main():
    with open_run(Path(sys.argv[1])) as run:
        run.begin(Epoch(input={}, asked={}, rows=rows) if run.commit.epoch == 0 else None)
        todo = iter([row for row, settled in enumerate(run.ledger.settled_mask()) if not settled])

        async def work():
            for row in todo:
                known = dict(item_id=str(row), row=row, input_file="f", input_line=1, status="succeeded", attempts=1)
                await writer.record(Outcome(**known, text="x" * (row % 3000)))
                print(row, flush=True)

        async with Writer(run) as writer, anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(work)

anyio.run(main)
"""


def lines_until_killed(directory: Path, *, after_s: float) -> list[str]:
    """Let a process record outcomes, kill it `after_s` after the first; give what it said it had written."""
    command = [sys.executable, "-c", BUY, str(directory), str(ROWS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        first = child.stdout.readline()
        time.sleep(after_s)
        child.kill()
        return (first + child.stdout.read()).splitlines(keepends=True)


@pytest.mark.slow
def test_ten_kills_lose_and_double_nothing(tmp_path: Path):
    chance = random.Random(7)
    acknowledged: set[int] = set()

    for _ in range(KILLS):
        lines = lines_until_killed(tmp_path / "run", after_s=chance.uniform(0, 0.25))
        acknowledged |= {int(line) for line in lines if line.endswith("\n")}

    with open_run(tmp_path / "run"):
        pass
    view = view_run(tmp_path / "run")
    rows = [row for source in view.sources for row in source.read(["row"])["row"].to_pylist()]
    assert len(rows) == len(set(rows)), "no outcome appears twice"
    assert acknowledged <= set(rows), "nothing that was acknowledged is missing"
    assert len(rows) - len(acknowledged) <= 20 * KILLS, "no more than was in flight goes unacknowledged"
    assert len(acknowledged) > 100
