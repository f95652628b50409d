"""Bytes out of files, plain or compressed, and lines out of bytes; never a whole file at once."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from hashlib import blake2b
from typing import IO, TYPE_CHECKING

import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.sources.base import MAX_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from batchrunner.sources.base import File

CHUNK_BYTES = 256 << 10
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Overlong(bytes):
    """Stands for a line above the bound: the hash of its bytes."""


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Turns what goes wrong with the file itself into a fault of the job."""
    try:
        yield
    except FileNotFoundError:
        raise JobError(f"{file.name}: no such file") from None
    except PermissionError:
        raise JobError(f"{file.name}: permission denied") from None
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"{file.name}: damaged or not what its name says: {str(error).rstrip('.')}") from error


def chunks(file: File) -> Iterator[bytes]:
    """The file's content, decompressed, a bounded piece at a time."""
    if file.compression is None:
        with file.at_hand().open("rb", buffering=0) as plain:
            while chunk := plain.read(CHUNK_BYTES):
                yield chunk
        return
    # Arrow's decompressors, because they refuse a stream that ends before its time.
    with pa.input_stream(str(file.at_hand()), compression=file.compression) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def seekable(file: File) -> Iterator[str | IO[bytes]]:
    """The file's content, decompressed, where any part of it can be read: on disk."""
    if file.compression is None:
        yield str(file.at_hand())
        return
    with tempfile.TemporaryFile() as unpacked:
        with pa.input_stream(str(file.at_hand()), compression=file.compression) as stream:
            shutil.copyfileobj(stream, unpacked, CHUNK_BYTES)
        yield unpacked


def lines(file: File) -> Generator[list[bytes], None, None]:
    """The file's lines without their LF, some at a time; a mark of UTF-8 at the start is dropped."""
    rest = _Rest()
    for chunk in _unmarked(file):
        first, *others = chunk.split(b"\n")
        rest.add(first)
        if others:
            last = others.pop()
            yield [rest.take(), *others]
            rest.add(last)
    yield [rest.take()]


def _unmarked(file: File) -> Iterator[bytes]:
    pieces = chunks(file)
    start = next(pieces, b"")
    if start.startswith(_UTF16_MARKS):
        raise JobError(f"{file.name}: the text is UTF-16; write it as UTF-8")
    yield start.removeprefix(_UTF8_MARK)
    yield from pieces


class _Rest:
    """A line that goes on in the next chunk. Above the bound only its hash is kept."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        self._pieces.clear()
        self._size = 0
        self._hash = blake2b(digest_size=8)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > MAX_ROW_BYTES:
            self._let_go()

    def _let_go(self) -> None:
        for piece in self._pieces:
            self._hash.update(piece)
        self._pieces.clear()

    def take(self) -> bytes:
        line = b"".join(self._pieces) if self._size <= MAX_ROW_BYTES else Overlong(self._hash.hexdigest().encode())
        self._begin()
        return line
