"""The lock and the manifest on a store whose answers get lost after it did what it was asked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from real import needs

from batchrunner.errors import RunLocked
from batchrunner.objects import Entry, Folder, ObjectsError
from batchrunner.records import Outcome
from batchrunner.store.claim import LOCK, Claim
from batchrunner.store.mirror import MANIFEST, Mirror
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchrunner.store.run import Run

pytestmark = pytest.mark.real


class Forgetful(Folder):
    """Does what it is asked, and says for the names in `lost`, once each, that it cannot be reached."""

    def __init__(self) -> None:
        needs.package("obstore", "pip install 'batchrunner[cloud]'")
        from obstore.store import MemoryStore

        super().__init__("s3://nightly/run", MemoryStore())
        self.lost: set[str] = set()

    def swap(self, name: str, data: bytes, entry: Entry) -> Entry | None:
        return self._answer(name, super().swap(name, data, entry))

    def create(self, name: str, content: bytes | Path) -> Entry | None:
        return self._answer(name, super().create(name, content))

    def _answer(self, name: str, made: Entry | None) -> Entry | None:
        if name in self.lost:
            self.lost.remove(name)
            raise ObjectsError("the answer is lost")
        return made


@pytest.fixture
def folder() -> Forgetful:
    return Forgetful()


def test_a_renewal_whose_answer_is_lost_is_no_loss_of_the_lock(folder):
    claim = Claim(folder)
    claim.acquire("me", 0)
    folder.lost.add(LOCK)
    with pytest.raises(ObjectsError):
        claim.renew()

    claim.renew()
    claim.check()
    claim.release()

    assert folder.head(LOCK) is None


def test_a_lock_that_another_took_is_lost(folder):
    claim = Claim(folder)
    claim.acquire("me", 0)
    folder.put(LOCK, b'{"owner": "another"}')

    claim.renew()

    with pytest.raises(RunLocked, match="another process has taken the lock"):
        claim.check()
    claim.release()
    assert folder.read(LOCK).data == b'{"owner": "another"}'


@pytest.mark.parametrize("times", [0, 1])
def test_a_manifest_whose_answer_is_lost_is_replaced_all_the_same(tmp_path: Path, folder, times):
    mirror = Mirror(folder, tmp_path)
    mirror.take(wait_s=0, create=True)
    for number in range(times):
        (tmp_path / MANIFEST).write_text(f"{number}")
        mirror.put_manifest()
    folder.lost.add(MANIFEST)
    (tmp_path / MANIFEST).write_text("lost")
    with pytest.raises(Exception, match="lost"):
        mirror.put_manifest()

    (tmp_path / MANIFEST).write_text("found")
    mirror.put_manifest()
    mirror.close(whole=False)

    assert folder.read(MANIFEST).data == b"found"


def test_a_manifest_that_another_replaced_ends_the_run(tmp_path: Path, folder):
    mirror = Mirror(folder, tmp_path)
    mirror.take(wait_s=0, create=True)
    (tmp_path / MANIFEST).write_text("ours")
    mirror.put_manifest()
    folder.put(MANIFEST, b"another's")
    folder.put(LOCK, b'{"owner": "another"}')

    with pytest.raises(RunLocked):
        mirror.put_manifest()
    mirror.close(whole=False)

    assert folder.read(MANIFEST).data == b"another's"


def outcome(row: int, text: str) -> Outcome:
    return Outcome(item_id=f"id-{row}", row=row, input_file="f", input_line=None, status="succeeded", text=text)


@contextmanager
def part_of(mirror: Mirror, text: str) -> Iterator[Run]:
    """A run that goes on from what is there, with one part that is not there yet."""
    mirror.directory.mkdir(exist_ok=True)
    mirror.take(wait_s=0, create=True)
    mirror.pull()
    with open_run(mirror.directory) as run:
        run.begin(Epoch(input={}, asked={}, rows=2))
        mirror.push(run.commit)
        for row in range(2):
            run.append(outcome(row, text))
        run.seal()
        yield run


def test_a_part_that_comes_late_replaces_none_that_counts(tmp_path: Path, folder):
    """Its process was cut off for so long that another has gone on, under the same names."""
    late, other = (Mirror(folder, tmp_path / name) for name in ("late", "other"))
    with part_of(late, "late") as ours:
        folder.remove([LOCK])
        with part_of(other, "counts") as theirs:
            other.push(theirs.commit)
            (part,) = theirs.commit.parts
            before = folder.read(f"parts/{part.name}")
            with pytest.raises(RunLocked, match="another process"):
                late.push(ours.commit)
        assert [one.name for one in ours.commit.parts] == [part.name]
    late.close(whole=False)
    other.close(whole=False)

    assert folder.read(f"parts/{part.name}") == before
    assert pq.read_table(tmp_path / "other" / "parts" / part.name)["text"].to_pylist() == ["counts"] * 2


def test_a_part_that_no_commit_names_makes_way(tmp_path: Path, folder):
    mirror = Mirror(folder, tmp_path)
    with part_of(mirror, "ours") as run:
        (part,) = run.commit.parts
        folder.put(f"parts/{part.name}", b"left by a process that was killed")

        mirror.push(run.commit)

        assert folder.read(f"parts/{part.name}").data == (tmp_path / "parts" / part.name).read_bytes()
    mirror.close(whole=False)
