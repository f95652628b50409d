"""The power goes: an ext4 of its own, on a loop device, is shut down without a word, and mounted again.

What was written but not synced is gone then, as after a real cut.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pytest
from driving import batchrunner, finish, prompts, run_words, start, write_rows
from faulty_server import serve_in_thread
from real.needs import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faulty_server import FaultyServer

ROWS, IN_FLIGHT, CUTS = 6_000, 40, 10
UNSYNCED = 100
"""What the journal may hold unsynced: the outcomes of 50 ms, but never more than 100. Here 50 ms are about 20."""
SHUT_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, which is _IOR('X', 125, __u32)."""
FLUSH_NOTHING = (2).to_bytes(4, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system in a file."""

    image: Path
    at: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.at], check=True, capture_output=True, text=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.at], check=True)

    def cut(self) -> None:
        """From now on nothing reaches the disk, and what had not is lost."""
        directory = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUT_DOWN, FLUSH_NOTHING)
        finally:
            os.close(directory)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(image=tmp_path / "disk.ext4", at=tmp_path / "disk")
    made.at.mkdir()
    with made.image.open("wb") as file:
        file.truncate(128 * 2**20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", made.image], check=True, capture_output=True, text=True)
        made.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        lacking("a loop mount of ext4", f"root, mkfs.ext4 and loop devices are needed: {error}")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", made.at], check=False)


def prompts_seen(server: FaultyServer) -> list[str]:
    return [seen.json()["messages"][-1]["content"] for seen in server.seen]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_power_cut_takes_no_more_than_what_was_not_synced(disk, tmp_path):
    """Ten cuts over one run, each in the middle or near the start of a life, one more after its end."""
    chance, lost, asked = random.Random(3), [], set()
    rows, run = write_rows(tmp_path / "rows.jsonl", prompts(ROWS)), disk.at / "run"
    with serve_in_thread() as server:
        server.latency_s = 0.05
        words = run_words(rows, server.url, "--concurrency", IN_FLIGHT, "--out", run)
        for number in range(CUTS + 1):
            server.seen.clear()
            if number < CUTS:
                process = start(*words)
                if number % 3:
                    wait_for(server, process, answers=chance.randint(200, 300))
                else:
                    time.sleep(chance.uniform(0.4, 1.2))
                disk.cut()
                process.kill()
                finish(process)
            else:
                ended = batchrunner(*words)
                disk.cut()
            disk.unmount()
            disk.mount()
            lost.append(len(asked & set(prompts_seen(server))))
            asked |= set(prompts_seen(server))

    assert ended.code == 0, ended.err
    table = pl.read_parquet(run / "results.parquet")
    assert table["item_id"].to_list() == [f"p{n}" for n in range(ROWS)]
    assert set(table["status"]) == {"succeeded"}
    assert max(lost) <= IN_FLIGHT + UNSYNCED, lost


def wait_for(server: FaultyServer, process: subprocess.Popen[str], *, answers: int) -> None:
    while len(server.seen) < answers + server.in_flight:
        assert process.poll() is None, finish(process)
        time.sleep(0.005)
