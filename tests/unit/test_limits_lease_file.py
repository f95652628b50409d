"""The file that processes of one host share: what is in it, whose it is, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from batchrunner.errors import JobError, StoreError
from batchrunner.limits import LeaseFile
from batchrunner.limits.lease import Want

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.limits.lease import Slice

pytestmark = pytest.mark.anyio
WANT = Want(per_minute=60.0)


def lease(path: Path, now: float = 100.0, boot: str = "boot") -> LeaseFile:
    return LeaseFile(path, clock=lambda: now, boot=boot)


async def take(path: Path, now: float = 100.0, *, lane: str = "lane", boot: str = "boot") -> Slice:
    shared = lease(path, now, boot)
    try:
        return await shared.take(lane, WANT)
    finally:
        shared.close()


async def test_each_process_gets_the_next_slice(tmp_path: Path):
    slices = [await take(tmp_path / "lease") for _ in range(3)]

    assert [round(each.starts_in_s) for each in slices] == [0, 1, 2]


async def test_lanes_have_accounts_of_their_own(tmp_path: Path):
    await take(tmp_path / "lease", lane="one")

    assert (await take(tmp_path / "lease", lane="other")).starts_in_s == 0


async def test_a_pause_reaches_the_others(tmp_path: Path):
    refused = lease(tmp_path / "lease")
    refused.pause("lane", 7.0)
    refused.close()

    told = await take(tmp_path / "lease", 102.0)

    assert told.paused_s == pytest.approx(5.0)


async def test_after_a_reboot_it_begins_anew(tmp_path: Path):
    await take(tmp_path / "lease", 1_000_000.0, boot="yesterday's")

    assert (await take(tmp_path / "lease", 5.0, boot="today's")).starts_in_s == 0


async def test_another_host_is_refused_while_one_uses_it(tmp_path: Path):
    path = tmp_path / "lease"
    await take(path)
    told = json.loads(path.read_text()) | {"host": "elsewhere", "boot": "theirs"}

    path.write_text(json.dumps(told))
    with pytest.raises(JobError, match=r"limits.lease: .*lease is in use on elsewhere.*one host"):
        lease(path)
    path.write_text(json.dumps(told | {"used_at": time.time() - 3_600}))
    lease(path).close()


async def test_the_file_is_its_owners_alone(tmp_path: Path):
    await take(tmp_path / "lease")

    assert stat.S_IMODE((tmp_path / "lease").stat().st_mode) == 0o600


async def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path):
    rows = tmp_path / "prompts.jsonl"
    rows.write_text('{"id": 1, "prompt": "Hello"}\n')

    with pytest.raises(JobError, match=r"prompts\.jsonl is no lease file, and is left as it is"):
        lease(rows)

    assert rows.read_text() == '{"id": 1, "prompt": "Hello"}\n'


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "nowhere"])
async def test_what_cannot_be_a_lease_is_a_fault(tmp_path: Path, kind: str):
    path = tmp_path / "lease"
    if kind == "link":
        (tmp_path / "file").touch()
        path.symlink_to(tmp_path / "file")
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "no" / "lease"

    with pytest.raises(JobError, match=r"limits\.lease: "):
        lease(path)


async def test_a_removed_file_is_made_again(tmp_path: Path):
    path = tmp_path / "lease"
    early = lease(path)
    await early.take("lane", WANT)
    path.unlink()

    await early.take("lane", WANT)
    later = await take(path)
    early.close()

    assert round(later.starts_in_s) == 1


async def test_whoever_has_the_lock_is_waited_for(tmp_path: Path):
    path = tmp_path / "lease"
    shared, slices = lease(path), []

    async def take_one() -> None:
        slices.append(await shared.take("lane", WANT))

    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    async with anyio.create_task_group() as group:
        group.start_soon(take_one)
        await anyio.sleep(0.05)
        assert slices == []
        os.close(file)
    shared.close()

    assert len(slices) == 1


async def test_a_file_that_is_spoiled_meanwhile_ends_the_run(tmp_path: Path):
    shared = lease(tmp_path / "lease")
    (tmp_path / "lease").write_text("{}")

    with pytest.raises(StoreError, match="is no lease file"):
        await shared.take("lane", WANT)
    shared.pause("lane", 1.0)  # That is nobody's end.
    shared.close()


async def test_lanes_that_nobody_uses_any_more_are_forgotten(tmp_path: Path):
    for number in range(100):
        await take(tmp_path / "lease", lane=f"agent {number}")
    await take(tmp_path / "lease", 5_000.0)

    assert list(json.loads((tmp_path / "lease").read_text())["lanes"]) == ["lane"]
