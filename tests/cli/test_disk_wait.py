"""A disk that fills up under a run, and somebody who makes room: real mounts."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from crash.disks import small_disk
from driving import api, finish, prompts, run_words, start, write_rows

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 4) as place:
        yield place


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def filling(path: Path) -> Iterator[None]:
    """Whatever room there comes to be is taken at once."""
    ended = threading.Event()

    def take() -> None:
        with path.open("wb", buffering=0) as file:
            while not ended.wait(0.0005):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"ended without saying {text!r}")


@pytest.mark.slow
def test_a_full_disk_holds_the_run_until_there_is_room(tmp_path, disk):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(300))
    with api(tmp_path / "api.jsonl", latency=0.05) as tess:
        process = start(*run_words(rows, tess.url, "--out", disk / "run", "--concurrency", 8))
        while len(tess.seen()) < 40:
            time.sleep(0.1)
        fill(disk / "filler")
        said = read_until(process, "nothing is sent")
        held = len(tess.seen())
        time.sleep(1)
        still = len(tess.seen())
        (disk / "filler").unlink()
        ended = finish(process)

        assert "no space left on device; make room" in said
        assert held == still < 300
        assert ended.code == 0, ended.err
        assert "there is room again" in ended.err
        assert len(tess.seen()) == 300


@pytest.mark.slow
def test_when_nobody_makes_room_it_ends_with_16_and_what_was_answered_is_there(tmp_path, disk):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(300))
    with api(tmp_path / "api.jsonl", latency=0.05) as tess:
        words = run_words(rows, tess.url, "--out", disk / "run", "--concurrency", 8, "--disk-wait", "1s")
        process = start(*words)
        while len(tess.seen()) < 40:
            time.sleep(0.1)
        fill(disk / "filler")
        full = finish(process)
        (disk / "filler").unlink()
        resumed = finish(start(*words))

        assert full.code == 16, full.err
        assert resumed.code == 0, resumed.err
        assert len(tess.seen()) == 300


@pytest.mark.slow
def test_a_disk_that_takes_nothing_at_all_still_leaves_the_summary_its_last_word(tmp_path, disk):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(60))
    with api(tmp_path / "api.jsonl", latency=0.5) as tess:
        words = ("--state-dir", disk / "state", "--out", tmp_path / "run", "--concurrency", 8, "--disk-wait", "1s")
        process = start(*run_words(rows, tess.url, *words))
        while len(tess.seen()) < 20:
            time.sleep(0.1)
        with filling(disk / "filler"):
            ended = finish(process)

    assert ended.code == 16, ended.err
    assert ended.last_line == str(tmp_path / "run")
    assert "items " in ended.err


@pytest.mark.slow
def test_a_signal_ends_the_wait_for_room_also_when_all_is_answered(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(20))
    (tmp_path / "run").mkdir()
    with small_disk(tmp_path / "run" / "parts", 4 / 1024), api(tmp_path / "api.jsonl") as tess:
        process = start(*run_words(rows, tess.url, "--out", tmp_path / "run"))
        read_until(process, "until there is room")
        process.send_signal(signal.SIGTERM)
        ended = finish(process, timeout_s=20)

    assert ended.code == 16, ended.err
    assert ended.last_line == str(tmp_path / "run")
