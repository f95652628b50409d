"""One process owns a run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import RunLocked
from batchrunner.store import lock

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from batchrunner.store import lock
held = lock.acquire(Path(sys.argv[1]), clock=lambda: 1_700_000_000)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_refused_and_told_who_has_it_and_what_to_do(tmp_path: Path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"

        with pytest.raises(RunLocked) as refused:
            lock.acquire(tmp_path / "lock")

        other.kill()
    said = str(refused.value)
    assert said.startswith(f"{tmp_path} is in use by pid {other.pid} on ")
    assert said.endswith("; wait for it (--wait-lock 10m), or give another --out")
    lock.acquire(tmp_path / "lock").release()


def test_waiting_ends_when_the_owner_lets_go(tmp_path: Path):
    held = lock.acquire(tmp_path / "lock")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            held.release()

    lock.acquire(tmp_path / "lock", wait_s=60, sleep=sleep).release()

    assert slept == [0.05, 0.2, 0.2]


def test_waiting_ends_when_its_time_is_up(tmp_path: Path):
    held = lock.acquire(tmp_path / "lock")
    slept: list[float] = []

    with pytest.raises(RunLocked):
        lock.acquire(tmp_path / "lock", wait_s=1, sleep=slept.append)

    assert sum(slept) == pytest.approx(1, abs=0.06)
    held.release()


def test_looking_whether_a_lock_is_held_does_not_hold_it(tmp_path: Path):
    path = tmp_path / "lock"
    assert not lock.lock_is_held(path)

    held = lock.acquire(path)
    assert lock.lock_is_held(path)
    held.release()

    assert not lock.lock_is_held(path)
    lock.acquire(path).release()


def test_a_lock_signed_by_nobody_is_respected_all_the_same(tmp_path: Path):
    held = lock.acquire(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(b"")

    with pytest.raises(RunLocked, match=r" is in use; wait"):
        lock.acquire(tmp_path / "lock")

    held.release()


def test_a_directory_renamed_away_while_waiting_is_not_mistaken_for_the_new_one(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    held = lock.acquire(run / "lock")

    def swap(seconds: float) -> None:
        run.rename(tmp_path / "run.1")
        run.mkdir()

    new = lock.acquire(run / "lock", wait_s=1, sleep=swap)

    assert (run / "lock").exists()
    new.release()
    held.release()
