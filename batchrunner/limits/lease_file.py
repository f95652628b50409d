"""A lease between the processes of one host: a locked file, no daemon. Whoever dies loses the slice it had, no more."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from batchrunner.errors import JobError, StoreError
from batchrunner.limits.lease import Account, Slice, Want, read_account

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = "batchrunner lease 1"
SIZE = 4096
"""What the file has from the start, so that a full disk refuses no slice later."""
POLL_S, LONGEST_S = 0.002, 30.0
"""Others hold the lock for some microseconds, unless they are stopped with it."""
APART_S = 60.0
"""Who has used the file for less long than this, from another host, uses it still."""


class LeaseFile:
    """Accounts by lane in the file at `path`, their instants in this boot's monotonic clock, which all processes share.

    Raises JobError where the file is none of ours, or cannot be.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, boot: str | None = None) -> None:
        self.path, self._clock = path, clock
        self._boot, self._host = boot or boot_id(), os.uname().nodename
        self._file = -1
        try:
            self._open()
            until = time.monotonic() + LONGEST_S
            while not self._locked():
                if time.monotonic() > until:
                    raise BlockingIOError
                time.sleep(POLL_S)
            self._write(self._accounts())
        except (OSError, StoreError) as error:
            self.close()
            said = str(error) if isinstance(error, StoreError) else f"{path}: {_reason(error)}"
            raise JobError(f"limits.lease: {said}") from error
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    async def take(self, lane: str, want: Want) -> Slice:
        try:
            await self._lock()
            try:
                accounts = self._accounts()
                found = accounts.setdefault(lane, Account()).take(want, self._clock())
                self._write(accounts)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise StoreError(f"limits.lease: {self.path}: {_reason(error)}", full=_is_full(error)) from error
        return found

    def pause(self, lane: str, seconds: float) -> None:
        """Where another process has the lock just now, or nothing can be written, the others find out by themselves."""
        with suppress(OSError, StoreError):
            if not self._locked():
                return
            try:
                accounts = self._accounts()
                accounts.setdefault(lane, Account()).pause(seconds, self._clock())
                self._write(accounts)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(self.path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise StoreError(f"{self.path}: expected a file, new or made by --lease")

    async def _lock(self) -> None:
        waited_s = 0.0
        while not self._locked():
            if waited_s >= LONGEST_S:
                raise BlockingIOError
            await anyio.sleep(POLL_S)
            waited_s += POLL_S

    def _locked(self) -> bool:
        """Whether the lock is ours now."""
        if os.fstat(self._file).st_nlink == 0:
            # Somebody has removed the file: those who come later have another one by then.
            self.close()
            self._open()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _accounts(self) -> dict[str, Account]:
        """What there is, of this boot. Raises StoreError where the file is not ours or somebody else's."""
        text = os.pread(self._file, max(SIZE, os.fstat(self._file).st_size), 0)
        if not text.strip(b" \0"):
            return {}
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(f"expected {FORMAT!r}")
            if found["boot"] == self._boot:
                return {lane: read_account(fields) for lane, fields in found["lanes"].items()}
            other, used_s = str(found["host"]), time.time() - float(found["used_at"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.path} is no lease file, and is left as it is; give another --lease, or remove it"
            ) from error
        if other != self._host and used_s < APART_S:
            raise StoreError(
                f"{self.path} is in use on {other}, whose clock is another; a lease file is for the processes of one "
                f"host: give each host its own and a part of the limits, or --engine ray"
            )
        return {}

    def _write(self, accounts: dict[str, Account]) -> None:
        now = self._clock()
        told: dict[str, Any] = {
            "format": FORMAT,
            "boot": self._boot,
            "host": self._host,
            "used_at": round(time.time(), 3),
            "lanes": {lane: asdict(account) for lane, account in accounts.items() if not account.idle(now)},
        }
        text = json.dumps(told, separators=(",", ":")).encode()
        # As long as before, so that a process killed here leaves whole JSON.
        size = max(SIZE, os.fstat(self._file).st_size)
        os.pwrite(self._file, text.ljust(size), 0)


def boot_id() -> str:
    """Names this boot of this machine: monotonic instants of one boot can be compared, no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return asked.stdout.strip() or f"booted {round((time.time() - time.monotonic()) / 600)}"


def _reason(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return f"another process has kept it locked for {LONGEST_S:g} s"
    if error.errno == errno.ELOOP:
        return "is a link; give the file itself"
    return (error.strerror or str(error)).lower()


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
