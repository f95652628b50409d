"""A run on an object store: the run directory of this machine, and its counterpart there.

Lock, journal and everything that is written often are here; parts, commits, manifest and results are put there
whole, commits where none is. The commits there rule: what this machine has beyond them is brought there, and what
another machine has gone on with is set aside here.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from batchrunner.errors import RunError, RunLocked, StoreError
from batchrunner.objects import Folder, Moved, ObjectsError, Taken
from batchrunner.store import chain, commits, files
from batchrunner.store.claim import LOCK, Claim
from batchrunner.store.journal import SegmentFiles
from batchrunner.store.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from batchrunner.objects import Entry
    from batchrunner.store.commits import Commit

MANIFEST, LOG = "run.json", "log.jsonl"
SINGLE = (MANIFEST, LOG, "stdin.jsonl")
"""Files that come along with a run."""
RESULTS = "results.parquet"
LARGEST_LOG = 8 * 2**20
"""A longer log is put in place at the end only."""
AT_ONCE = 8


class Mirror:
    """The counterpart of the run directory `directory` below `folder`.

    `take` comes first, then `pull`; `push` as often as there is something new, from any thread; `close` last.
    Before anything was sent a refusal is a RunError where it lasts; StoreError otherwise.
    """

    def __init__(self, folder: Folder, directory: Path) -> None:
        self.folder, self.directory = folder, directory
        self._claim = Claim(folder, renewed=self._show)
        self._manifest: Entry | None = None
        self._parts: set[str] = set()
        """Those that the last commit there names."""
        self._commits: set[int] = set()
        self._stray: set[str] = set()
        """Parts there that no commit names: leftovers of a process that was killed."""
        self._pushing = threading.Lock()

    @property
    def address(self) -> str:
        return self.folder.address

    # Before anything is sent

    def take(self, *, wait_s: float, create: bool) -> tuple[str, ...]:
        """Hold the run there. Gives what a person should know. Raises RunLocked, RunError."""
        with self._preparing():
            self._check_ours(create=create)
            self._claim.acquire(_owner(self.directory / "owner"), wait_s)
        if self._claim.enforced:
            return ()
        doubt = (
            f"{self.address}: this store lets an object be created where one is already: two runs at once may not "
            "notice each other; see that only one is started"
        )
        return (doubt,)

    def pull(self) -> tuple[str, ...]:
        """Bring this machine's directory up to what is there. Gives a sentence for each thing that is set aside."""
        with self._preparing():
            there = {entry.name: entry for entry in self.folder.entries()}
            self._manifest = there.get(MANIFEST)
            self._commits = {int(name[8:-5]) for name in there if _is_commit(name)}
            latest = self._latest()
            if latest is None:
                return ()
            parts = {name[6:] for name in there if name.startswith("parts/")}
            self._parts, self._stray = parts & _named(latest), parts - _named(latest)
            local = commits.latest(self.directory / "commits") if (self.directory / "commits").is_dir() else None
            if local is not None and self._continues(local, latest):
                return ()
            told = self._set_aside(local, latest) if local is not None else ()
            self._bring(latest, there)
            return told or self._interrupted()

    def is_ahead(self) -> bool:
        """Whether this machine's directory goes on from what is there. Raises RunError, StoreError."""
        with self._preparing():
            self._commits = {
                int(entry.name[8:-5]) for entry in self.folder.entries("commits") if _is_commit(entry.name)
            }
            latest = self._latest()
            local = commits.latest(self.directory / "commits") if (self.directory / "commits").is_dir() else None
            return local is not None and (latest is None or self._continues(local, latest))

    def refresh(self) -> None:
        """Bring a copy, for readers alone, up to what is there."""
        with self._preparing():
            there = {entry.name: entry for entry in self.folder.entries()}
            self._commits = {int(name[8:-5]) for name in there if _is_commit(name)}
            latest = self._latest()
            if latest is not None:
                self._bring(latest, there)

    def bring_finished(self) -> None:
        """Of a run that has ended what tells its end, for whoever merges it: commits, manifest and results."""
        with self._preparing():
            names = {entry.name for entry in self.folder.entries()}
            files.make_directory(self.directory / "commits")
            wanted = [name for name in sorted(names) if _is_commit(name) or name in (MANIFEST, RESULTS)]
            self._each(lambda name: self.folder.fetch(name, self.directory / name), wanted)

    def bring_results(self) -> None:
        """The results there, if there are any, for whoever only reads."""
        with self._preparing():
            if self.folder.head(RESULTS) is not None:
                self.folder.fetch(RESULTS, self.directory / RESULTS)

    def _check_ours(self, *, create: bool) -> None:
        names = {PurePosixPath(entry.name).parts[0] for entry in self.folder.entries()}
        if not create and "commits" not in names:
            raise RunError(f"{self.address}: no run here; see that the address is right")
        others = {name for name in names if name != LOCK and not name.startswith(".probe-")}
        if others and "commits" not in names and not others <= {MANIFEST, "parts"}:
            some = ", ".join(sorted(others)[:3])
            raise RunError(f"{self.address} is not a run and not empty (it holds {some}); give another --out")

    def _latest(self) -> Commit | None:
        numbers = sorted(self._commits)
        for number in reversed(numbers):
            commit = commits.unpack(self._read(_commit(number)), number, where=self.folder.where(_commit(number)))
            if commit is not None:
                return commit
        if numbers:
            raise RunError(f"{self.address}/commits: none of {len(numbers)} commits is valid; {commits.WAY_BACK}")
        return None

    def _read(self, name: str) -> bytes:
        found = self.folder.read(name)
        return found.data if found is not None else b""

    def _continues(self, local: Commit, latest: Commit) -> bool:
        """Whether what is here goes on from what is there: nobody else has."""
        here = self.directory / _commit(latest.number)
        return (
            local.number >= latest.number and here.is_file() and here.read_bytes() == self._read(_commit(latest.number))
        )

    def _set_aside(self, local: Commit, latest: Commit) -> tuple[str, ...]:
        with suppress(RunError, OSError):
            survey = chain.survey(SegmentFiles(self.directory / "journal", local.run_id), after=local.folded_through)
            count = sum(one.outcomes for one in survey.closed)
            count += sum(part.rows for part in local.parts if part not in latest.parts)
            number = 1 + sum(1 for _ in self.directory.glob("superseded-*"))
            aside = self.directory / f"superseded-{number}"
            aside.mkdir()
            for name in ("commits", "parts", "journal", RESULTS, *SINGLE):
                with suppress(FileNotFoundError):
                    (self.directory / name).rename(aside / name)
            files.sync_directory(self.directory)
            if not count:
                shutil.rmtree(aside, ignore_errors=True)
                return ()
            told = (
                f"another machine went on with {self.address}: {count:,} outcomes that only this one had are set aside "
                f"in {aside}, and their items are asked again"
            )
            return (told,)
        raise RunError(
            f"{self.directory}: what this machine has of {self.address} is damaged; remove it, and the run goes on "
            "from the bucket"
        )

    def _interrupted(self) -> tuple[str, ...]:
        manifest = read_manifest(self.directory / MANIFEST) or {}
        if manifest.get("state") != "running":
            return ()
        told = (
            f"{self.address} was left at work on {manifest.get('host')}, and its journal is not here: what was settled "
            f"there after {manifest.get('heartbeat_at')} is asked again"
        )
        return (told,)

    def _bring(self, latest: Commit, there: dict[str, Entry]) -> None:
        for folder in ("commits", "journal", "parts"):
            files.make_directory(self.directory / folder)
        names = [f"parts/{name}" for name in sorted(_named(latest)) if not self._has(there.get(f"parts/{name}"))]
        names += [name for name in SINGLE if name in there]
        self._each(lambda name: self.folder.fetch(name, self.directory / name), names)
        for folder in ("parts", "."):
            files.sync_directory(self.directory / folder)
        # Commits last: they say that the rest is here.
        for number in sorted(self._commits):
            known = (self.directory / _commit(number)).exists()
            data = b"" if known else self._read(_commit(number))
            if data:
                files.write_new(self.directory / _commit(number), data)

    def _has(self, entry: Entry | None) -> bool:
        """Whether an immutable object is here already."""
        if entry is None:
            return False
        path = self.directory / entry.name
        return path.is_file() and path.stat().st_size == entry.size

    # While it runs

    def check(self) -> None:
        """Raises RunLocked or StoreError when the run is not certainly ours any more."""
        self._claim.check()

    def push(self, commit: Commit) -> None:
        """Bring there whatever `commit` names, then the commit itself, then what people read."""
        with self._pushing, self._storing():
            self.check()
            missing = sorted(_named(commit) - self._parts)
            self._each(self._put_part, missing)
            self._publish()
            self._drop(commit)
            self._put_manifest()
            log = self.directory / LOG
            if log.is_file() and log.stat().st_size <= LARGEST_LOG:
                self.folder.put(LOG, log)

    def _put_part(self, name: str) -> None:
        """Never over one that counts: who was taken for dead may come back, with parts of the same names."""
        path = self.directory / "parts" / name
        try:
            self.folder.create(f"parts/{name}", path)
        except Taken as error:
            if not self._claim.holds:
                self._refuse(error)
            # What another left, which no commit names.
            self.folder.remove([f"parts/{name}"])
            self.folder.create(f"parts/{name}", path)

    def put_results(self) -> str:
        """The results there; gives their address. Raises StoreError."""
        with self._storing():
            self.check()
            self.folder.put(RESULTS, self.directory / RESULTS)
        return self.folder.where(RESULTS)

    def put_manifest(self) -> None:
        """Replace the manifest there. Raises StoreError, and RunLocked where somebody else has."""
        with self._pushing, self._storing():
            self._put_manifest()

    def _show(self) -> None:
        """How the run gets on, for whoever looks from elsewhere; while something is brought there, that tells it."""
        if self._pushing.acquire(blocking=False):
            try:
                self._put_manifest()
            except RunLocked:
                return  # The next check says so.
            finally:
                self._pushing.release()

    def _put_manifest(self) -> None:
        try:
            data = (self.directory / MANIFEST).read_bytes()
        except FileNotFoundError:
            return
        try:
            self._replace_manifest(data)
        except (Taken, Moved) as error:
            if not self._claim.holds:
                self._refuse(error)
            # It was us: an answer may be lost after the store did what we asked.
            self._manifest = self.folder.head(MANIFEST)
            self._replace_manifest(data)

    def _replace_manifest(self, data: bytes) -> None:
        if self._manifest is None:
            self._manifest = self.folder.create(MANIFEST, data)
        else:
            self._manifest = self.folder.swap(MANIFEST, data, self._manifest)

    def put_aside(self, to: Folder) -> None:
        """Rename the run there to another address: copied first, then removed."""
        with self._preparing():
            names = [entry.name for entry in self.folder.entries() if entry.name != LOCK]
            self._each(lambda name: self.folder.copy(name, to), names)
            self.folder.remove(names)
        self.forget()

    def close(self, *, whole: bool) -> None:
        """Let go of the run. `whole`: everything is there, so that nothing needs to be kept here."""
        try:
            with suppress(ObjectsError, OSError):
                for name in ("stdin.jsonl", LOG) if whole else ():
                    if (self.directory / name).is_file():
                        self.folder.put(name, self.directory / name)
                if whole:
                    self.forget()
        finally:
            self._claim.release()

    def forget(self) -> None:
        """Drop this machine's part of the run, but for what keeps a second process out."""
        for name in ("commits", "parts", "journal"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in (RESULTS, *SINGLE):
            files.discard(self.directory / name)

    def _publish(self) -> None:
        """Bring there the commits that are not, in their order."""
        folder = self.directory / "commits"
        for number in sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()):
            if number <= max(self._commits, default=0):
                continue
            try:
                self.folder.create(_commit(number), (self.directory / _commit(number)).read_bytes())
            except Taken as error:
                self._refuse(error)
            self._commits.add(number)

    def _drop(self, commit: Commit) -> None:
        """Remove there what is no longer here."""
        here = {int(path.stem) for path in (self.directory / "commits").glob("*.json") if path.stem.isdigit()}
        gone, self._stray = (self._parts | self._stray) - _named(commit), set()
        old = self._commits - here
        kept = {path.name for path in (self.directory / "parts").iterdir()}
        self.folder.remove([*map(_commit, sorted(old)), *(f"parts/{name}" for name in sorted(gone - kept))])
        self._commits -= old
        self._parts = _named(commit) | (gone & kept)

    def _refuse(self, error: ObjectsError) -> None:
        self._claim.lose(str(error).removeprefix(f"{self.address}/"))
        try:
            self._claim.check()
        except RunLocked as lost:
            raise lost from error

    def _each(self, work: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as workers:
            for done in [workers.submit(work, name) for name in names]:
                done.result()

    @contextmanager
    def _preparing(self) -> Iterator[None]:
        try:
            yield
        except ObjectsError as error:
            if error.lasting:
                raise RunError(str(error)) from error
            raise _unreachable(error) from error

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except ObjectsError as error:
            raise _unreachable(error) from error


def _owner(path: Path) -> str:
    """The name that this machine's part of the run has: whoever holds that part is the one whom the lock names."""
    with suppress(FileNotFoundError):
        return path.read_text()
    owner = secrets.token_hex(16)
    files.write_new(path, owner.encode())
    return owner


def _unreachable(error: ObjectsError) -> StoreError:
    return StoreError(f"{error}; see to the network and the store, then give the same command again")


def _commit(number: int) -> str:
    return f"commits/{number:06d}.json"


def _is_commit(name: str) -> bool:
    return name.startswith("commits/") and name.endswith(".json") and name[8:-5].isdigit()


def _named(commit: Commit) -> set[str]:
    """The files below parts/ that a commit names."""
    return {part.name for part in commit.parts} | ({commit.carried} if commit.carried else set())
