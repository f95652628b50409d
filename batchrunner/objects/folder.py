"""What lies below one address: read, put, created once, replaced only if unchanged."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.objects.address import below, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

PIECE_BYTES = 8 * 2**20
_SHOWN = 200
METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Where a machine asks for its role: an error from there means that nothing else was given."""


class ObjectsError(Exception):
    """An object store refused, or could not be reached. `lasting`: asking again will not help."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Taken(ObjectsError):
    """Somebody else's object is under this name already."""


class Moved(ObjectsError):
    """The object is not the one that was to be replaced any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object as a listing tells it; `modified` is by the store's clock."""

    name: str
    size: int
    modified: datetime
    etag: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object's bytes, and which version they are."""

    data: bytes
    entry: Entry


class Folder:
    """The objects below one address; names are relative to it. Made by `opening.Stores`."""

    def __init__(self, address: str, store: Any) -> None:
        self.address, self._store = address.rstrip("/"), store
        self.conditional = True
        """Whether the store replaces an object only if it is the one that is meant; else it is looked at first."""
        self._prefix = parts_of(address)[1]

    def where(self, name: str) -> str:
        return below(self.address, name)

    def entries(self, folder: str = "") -> list[Entry]:
        """All objects below a folder, in no order."""
        import obstore

        with self._asking(folder):
            listed = list(obstore.list(self._store, prefix=self._key(folder) or None))
        start = len(self._prefix) + 1 if self._prefix else 0
        return [_entry(one, one["path"][start:]) for some in listed for one in some]

    def head(self, name: str) -> Entry | None:
        import obstore

        try:
            with self._asking(name):
                return _entry(obstore.head(self._store, self._key(name)), name)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> Found | None:
        """An object whole, None where there is none."""
        import obstore

        try:
            with self._asking(name):
                got = obstore.get(self._store, self._key(name))
                return Found(data=bytes(got.bytes()), entry=_entry(got.meta, name))
        except FileNotFoundError:
            return None

    def fetch(self, name: str, path: Path, *, etag: str | None = None) -> None:
        """Bring an object to `path`, whole or not at all; of this version, if one is named."""
        import obstore

        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with self._asking(name), beside.open("wb") as file:
                got = obstore.get(self._store, self._key(name), options={"if_match": etag} if etag else {})
                for piece in got.stream(min_chunk_size=PIECE_BYTES):
                    file.write(piece)
            beside.replace(path)
        except FileNotFoundError:
            raise ObjectsError(f"{self.where(name)}: not there any more", lasting=True) from None
        finally:
            beside.unlink(missing_ok=True)

    def put(self, name: str, content: bytes | Path) -> None:
        """Put an object in place, whole, over any that is there."""
        import obstore

        with self._asking(name):
            obstore.put(self._store, self._key(name), content)

    def create(self, name: str, content: bytes | Path) -> Entry | None:
        """Put an object where none is. Raises Taken when another's is there.

        Asked again after an answer was lost, the store refuses our own: an object with the same bytes is ours.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._asking(name, AlreadyExistsError):
                obstore.put(self._store, self._key(name), content, mode="create")
        except AlreadyExistsError as error:
            found = self.read(name)
            if found is None or found.data != (content if isinstance(content, bytes) else content.read_bytes()):
                raise Taken(f"{self.where(name)} was written by another process") from error
        return self.head(name)

    def swap(self, name: str, data: bytes, entry: Entry) -> Entry | None:
        """Put an object in the place of exactly this one. Raises Moved when it has been replaced or removed."""
        if not self.conditional:
            return self._look_and_swap(name, data, entry)
        import obstore
        from obstore.exceptions import NotFoundError, PreconditionError

        version = {"e_tag": entry.etag, "version": entry.version}
        known: Any = {key: value for key, value in version.items() if value is not None}
        try:
            with self._asking(name, PreconditionError, NotFoundError):
                obstore.put(self._store, self._key(name), data, mode=known)
        except (PreconditionError, NotFoundError, FileNotFoundError) as error:
            found = self.read(name)
            if found is None or found.data != data:
                raise Moved(f"{self.where(name)} was replaced by another process") from error
        return self.head(name)

    def _look_and_swap(self, name: str, data: bytes, entry: Entry) -> Entry | None:
        found = self.head(name)
        if found is None or (found.etag, found.version) != (entry.etag, entry.version):
            raise Moved(f"{self.where(name)} was replaced by another process")
        self.put(name, data)
        return self.head(name)

    def remove(self, names: Iterable[str]) -> None:
        import obstore

        keys = [self._key(name) for name in names]
        if keys:
            with self._asking(""):
                obstore.delete(self._store, keys)

    def copy(self, name: str, to: Folder) -> None:
        """Copy an object to another folder of the same bucket, without bringing it here."""
        import obstore

        with self._asking(name):
            obstore.copy(self._store, self._key(name), to._key(name), overwrite=True)

    def _without_bucket(self) -> ObjectsError:
        return ObjectsError(f"{parts_of(self.address)[0]}: no such bucket; make it first", lasting=True)

    def _key(self, name: str) -> str:
        return "/".join(step for step in (self._prefix, name) if step)

    @contextmanager
    def _asking(self, name: str, *expected: type[Exception]) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except expected:
            raise
        except FileNotFoundError as error:
            if _no_bucket(error):
                raise self._without_bucket() from error
            raise
        except PermissionError as error:
            raise ObjectsError(f"{self.where(name)}: {_denied(error)}", lasting=True) from error
        except BaseError as error:
            if _no_bucket(error):
                raise self._without_bucket() from error
            if any(host in str(error) for host in METADATA):
                raise ObjectsError(
                    f"{self.where(name)}: no credentials were found, and this machine has no role; set the variables "
                    "or the profile that the vendor's own tools use",
                    lasting=True,
                ) from error
            lasting = isinstance(error, PermissionDeniedError | UnauthenticatedError)
            said = _denied(error) if lasting else brief(error)
            raise ObjectsError(f"{self.where(name)}: {said}", lasting=lasting) from error
        except OSError as error:
            raise ObjectsError(f"{error.filename or self.where(name)}: {error.strerror or brief(error)}") from error


def _entry(meta: Mapping[str, Any], name: str) -> Entry:
    return Entry(
        name=name,
        size=meta["size"],
        modified=meta["last_modified"],
        etag=meta.get("e_tag"),
        version=meta.get("version"),
    )


def _no_bucket(error: Exception) -> bool:
    return any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist"))


def _denied(error: Exception) -> str:
    return f"access denied ({brief(error)}); see to the credentials and what they may do"


def brief(error: Exception) -> str:
    """What the store said, in one line."""
    said = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    said = re.sub(r"^Generic \w+ error: (?:Error performing [a-z ]+: )?", "", said)
    return re.sub(r"<[^>]*>", " ", said).partition("Debug source")[0].rstrip(":. ")[:_SHOWN]
