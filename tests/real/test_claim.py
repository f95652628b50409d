"""The lock and the manifest on a store whose answers get lost after it did what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from real import needs

from batchrunner.errors import RunLocked
from batchrunner.objects import Entry, Folder, ObjectsError
from batchrunner.store.claim import LOCK, Claim
from batchrunner.store.mirror import MANIFEST, Mirror

if TYPE_CHECKING:
    from pathlib import Path

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

    def create(self, name: str, data: bytes) -> Entry | None:
        return self._answer(name, super().create(name, data))

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
