"""One process owns a run on an object store: a lock that is an object, renewed while its owner lives.

It is created where none is, and taken over once its owner is known to be dead or has not renewed it for a minute,
by the store's own clock. What it cannot keep out where a store does not hold to its word, the commits do.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import RunLocked, StoreError
from batchrunner.objects import Moved, ObjectsError, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.objects import Entry, Folder

LOCK = "lock"
EXPIRY_S, RENEW_S, POLL_S = 60.0, 15.0, 2.0
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Which process holds a claim: for the message, and to see whether it lives where it can be seen from here."""

    pid: int
    host: str
    boot: str | None = None
    """The machine's boot; None where the system does not tell."""
    space: str | None = None
    """The process namespace, in which `pid` means something."""
    began: str | None = None
    """When the process began, in ticks: numbers are given again."""

    @classmethod
    def own(cls) -> Process:
        pid = os.getpid()
        return cls(pid=pid, host=os.uname().nodename, boot=_boot(), space=_space(), began=_began(pid))

    @property
    def dead(self) -> bool:
        """Whether it ran on this machine, within sight, and has ended."""
        here = self.boot is not None and self.boot == _boot() and self.space is not None and self.space == _space()
        return here and _began(self.pid) != self.began


def _boot() -> str | None:
    return _told(Path("/proc/sys/kernel/random/boot_id"))


def _space() -> str | None:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return None


def _began(pid: int) -> str | None:
    found = _told(Path(f"/proc/{pid}/stat"))
    return found.rpartition(")")[2].split()[19] if found else None


def _told(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text().strip()
    return None


class Claim:
    """The lock of the run below a folder. Once it is held a thread renews it; `check` raises when it may be lost.

    `renewed` is called in that thread each time that went well; an ObjectsError of it is passed over.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        renewed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._renewed, self._clock, self._owner = folder, renewed, clock, ""
        self._process, self._since = Process.own(), round(time.time())
        self._entry: Entry | None = None
        self._renewed_at = 0.0
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self.enforced = True
        """Whether the store keeps its word that an object is created only where none is."""

    def acquire(self, owner: str, wait_s: float) -> None:
        """Take the lock, or raise RunLocked once `wait_s` has passed. Raises ObjectsError.

        `owner` is this machine's part of the run, which only one process has: what it held before is ours.
        """
        self._owner = owner
        until = self._clock() + wait_s
        read_at, now = self._clock(), self._probe()
        while not self._try(lambda: now.timestamp() + self._clock() - read_at):
            if self._clock() >= until:
                raise RunLocked(f"{self._folder.address} is in use{self._holder()}; {_WAY_OUT}")
            time.sleep(POLL_S)
        self._renewed_at = self._clock()
        self._renewing = threading.Thread(target=self._keep, name="claim", daemon=True)
        self._renewing.start()

    def alive(self) -> bool:
        """Whether somebody holds the lock now, as far as can be seen without taking it."""
        try:
            found = self._folder.read(LOCK)
        except ObjectsError:
            return False
        if found is None:
            return False
        age_s = datetime.now(UTC).timestamp() - found.entry.modified.timestamp()
        return not self._may_be_taken(_parsed(found.data), age_s=age_s)

    def check(self) -> None:
        """Raises RunLocked when another process has the run now, StoreError when it may, for we cannot be heard."""
        if self._lost is not None:
            raise RunLocked(self._lost)
        silent_s = self._clock() - self._renewed_at
        if self._entry is not None and silent_s > EXPIRY_S - RENEW_S:
            raise StoreError(
                f"{self._folder.address} has not been reached for {silent_s:.0f} s; see to the network, then give the "
                "same command again"
            )

    def lose(self, why: str) -> None:
        """Another process was found at work on this run."""
        self._lost = f"{self._folder.address}: {why} while this one held the run; stop one of them, then run again"

    def release(self) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        with suppress(ObjectsError):
            if self._entry is not None and self._lost is None and self.holds:
                self._folder.remove([LOCK])
        self._entry = None

    def _probe(self) -> datetime:
        """The store's time; finds out what the store can do, and whether it keeps its word."""
        name = f".probe-{secrets.token_hex(6)}"
        made = self._folder.create(name, b"first")
        try:
            self._folder.create(name, b"second")
        except Taken:
            pass
        else:
            self.enforced = False
        try:
            self._folder.swap(name, b"third", made or self._folder.read(name).entry)  # type: ignore[union-attr]
        except Moved:
            pass  # It was replaced just now, where the store does not keep its word.
        except ObjectsError:
            self._folder.conditional = False
        self._folder.remove([name])
        return made.modified if made is not None else datetime.now(UTC)

    def _try(self, now: Callable[[], float]) -> bool:
        with suppress(Taken, Moved):
            found = self._folder.read(LOCK)
            if found is None:
                self._entry = self._folder.create(LOCK, self._signed())
                return True
            if self._may_be_taken(_parsed(found.data), age_s=now() - found.entry.modified.timestamp()):
                self._entry = self._folder.swap(LOCK, self._signed(), found.entry)
                return True
        return False

    def _may_be_taken(self, holder: dict[str, Any], *, age_s: float) -> bool:
        if holder.get("owner") == self._owner or age_s > holder.get("expiry_s", EXPIRY_S):
            return True
        with suppress(TypeError):
            return Process(**holder["process"]).dead if "process" in holder else False
        return False

    def _keep(self) -> None:
        while self._entry is not None and self._lost is None and not self._ended.wait(RENEW_S):
            with suppress(ObjectsError):
                self.renew()
                self._renewed()

    def renew(self) -> None:
        """Say that we live. Raises ObjectsError; a lock that another has taken is lost."""
        entry = self._entry
        while entry is not None and self._lost is None:
            try:
                self._entry = self._folder.swap(LOCK, self._signed(), entry) or entry
                self._renewed_at = self._clock()
                return
            except Moved:
                # Perhaps by ourselves: an answer may be lost after the store did what we asked.
                entry = self._own_entry()
                if entry is None:
                    self.lose("another process has taken the lock")

    @property
    def holds(self) -> bool:
        """Whether the lock there is ours. Raises ObjectsError."""
        return self._own_entry() is not None

    def _own_entry(self) -> Entry | None:
        found = self._folder.read(LOCK)
        return found.entry if found is not None and _parsed(found.data).get("owner") == self._owner else None

    def _signed(self) -> bytes:
        process = {name: getattr(self._process, name) for name in Process.__dataclass_fields__}
        signed = {
            "owner": self._owner,
            "process": process,
            "since": self._since,
            "expiry_s": EXPIRY_S,
            "renewal": secrets.token_hex(4),
        }
        return orjson.dumps(signed)

    def _holder(self) -> str:
        found = self._folder.read(LOCK)
        holder = _parsed(found.data) if found is not None else {}
        try:
            since = datetime.fromtimestamp(holder["since"], tz=UTC).astimezone()
            return f" by pid {holder['process']['pid']} on {holder['process']['host']} since {since:%H:%M}"
        except (KeyError, TypeError, ValueError):
            return ""


_WAY_OUT = (
    f"wait for it (--wait-lock 10m; a machine that is gone frees it after {EXPIRY_S:.0f} s), or give another --out"
)


def _parsed(data: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = orjson.loads(data)
        return found if isinstance(found, dict) else {}
    return {}
