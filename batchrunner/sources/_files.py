"""Which files an input is: paths and globs, their format and compression by suffix, standard input spooled."""

from __future__ import annotations

import difflib
import glob
import os
import pkgutil
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from batchrunner.errors import JobError
from batchrunner.objects import ObjectsError, is_address
from batchrunner.sources._hive import files_below, is_meant, is_of_table, partition_of
from batchrunner.sources.base import File

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.objects import Copies

STANDARD_INPUT = "-"
_PACKED: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
_OTHER_NAMES = {"ndjson": "jsonl"}
_MEANT = {".json": ".jsonl", ".jsonlines": ".jsonl", ".jl": ".jsonl", ".pq": ".parquet", ".tsv": ".csv"}
_SHOWN_FILES = 3
_TABLE = "**/*=*/**/*"
"""What is in the key=value folders of an object store."""


def available() -> list[str]:
    """The formats there are, each named like its module and its suffix."""
    package = Path(__file__).parent
    modules = (module.name for module in pkgutil.iter_modules([str(package)]))
    return sorted(name for name in modules if name != "base" and not name.startswith("_"))


def find(patterns: Sequence[str], base: Path, copies: Copies | None = None) -> list[File]:
    """The files that the patterns name, in their order, those of a glob sorted. Raises JobError with all faults.

    `copies` finds those on object stores.
    """
    files: dict[Path, File] = {}
    faults: list[str] = []
    for pattern in patterns:
        if copies is not None and is_address(pattern):
            found = _objects(pattern, copies)
            faults += [] if found else [f"no object matches {pattern!r}"]
            files |= {file.path: file for file in found if file.path not in files}
            continue
        names = _names(pattern, base)
        if not names:
            faults.append(_nothing(pattern, base))
        for name in names:
            path = base / Path(name).expanduser()
            found_at = partition_of(name, pattern)
            files.setdefault(path, File(name=name, path=path, compression=_split(name)[1], partition=found_at))
    if faults:
        raise JobError(*faults)
    return [*files.values()]


def _objects(pattern: str, copies: Copies) -> list[File]:
    try:
        found = [copy for copy in copies.find(pattern) if is_meant(copy.address, pattern)]
        if not found and not glob.has_magic(pattern):
            whole = copies.find(f"{pattern.rstrip('/')}/{_TABLE}")
            found = [copy for copy in whole if is_of_table(copy.address.removeprefix(pattern))]
    except ValueError as error:
        raise JobError(str(error)) from None
    except ObjectsError as error:
        raise JobError(str(error)) from error
    return [
        File(
            name=copy.address,
            path=copy.path,
            compression=_split(copy.address)[1],
            copy=copy,
            partition=partition_of(copy.address, pattern),
        )
        for copy in found
    ]


def _names(pattern: str, base: Path) -> list[str]:
    at = base / Path(pattern).expanduser()
    if at.is_file():
        return [pattern]
    if at.is_dir():
        if found := files_below(at, pattern):
            return found
        raise JobError(
            f"{pattern} is a directory without key=value folders; name its files, as in "
            f"{pattern.rstrip('/') + '/*.jsonl'!r}"
        )
    if not glob.has_magic(pattern):
        return []
    expanded = os.path.expanduser(pattern)  # noqa: PTH111 (a pattern is no path)
    globbed = glob.glob(expanded, root_dir=base, recursive=True)  # noqa: PTH207
    found = sorted(name for name in globbed if is_meant(name, expanded))
    files = [name for name in found if (base / name).is_file()]
    # `lake/ds=2026-*` names folders of a table.
    return files or [file for name in found for file in files_below(base / name, name)]


def _nothing(pattern: str, base: Path) -> str:
    if "://" in pattern:
        return f"{pattern}: not a file of this machine; an object store is read with s3://, gs:// or az://"
    if glob.has_magic(pattern):
        return f"no file matches {pattern!r} (looked in {base})"
    at = base / Path(pattern).expanduser()
    beside = [each.name for each in at.parent.iterdir()] if at.parent.is_dir() else []
    kind = "not a regular file" if at.exists() else "no such file"
    return f"{pattern}: {kind} (looked in {base}){_near(at.name, beside)}"


def format_of(files: Sequence[File]) -> str:
    """The one format of all files. Raises JobError."""
    formats: dict[str, str] = {}
    faults = []
    for file in files:
        suffix = _split(file.name)[0]
        name = _OTHER_NAMES.get(suffix.removeprefix("."), suffix.removeprefix("."))
        if name in available():
            formats.setdefault(name, file.name)
        else:
            faults.append(_unknown(file, suffix))
    if faults:
        more = len(faults) - _SHOWN_FILES
        raise JobError(*faults[:_SHOWN_FILES], *([f"and {more} more files with unknown suffixes"] if more > 0 else []))
    if len(formats) > 1:
        raise JobError(f"the input mixes formats: {', '.join(formats.values())}; give files of one format")
    return next(iter(formats))


def _split(name: str) -> tuple[str, Literal["gzip", "zstd"] | None]:
    """A file name's suffix in lower case, without the one of its compression, and that compression."""
    path = Path(name.lower())
    if path.suffix in _PACKED:
        return path.with_suffix("").suffix, _PACKED[path.suffix]
    return path.suffix, None


def _unknown(file: File, suffix: str) -> str:
    known = sorted(f".{name}" for name in [*available(), *_OTHER_NAMES])
    hint = f"; did you mean {_MEANT[suffix]!r}?" if suffix in _MEANT else _near(suffix, known)
    what = f"unknown suffix {suffix!r}" if suffix else "no suffix"
    return f"{file.name}: {what}{hint} (known: {', '.join(known)}, also with .gz or .zst)"


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def spool_all(stream: IO[bytes], spool: Path) -> None:
    """Keep all of `stream` at `spool`, which is absent or whole."""
    beside = spool.with_name(f".{spool.name}.partial")
    with beside.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(spool)


def spooled(spool: Path) -> tuple[File, str]:
    """What standard input was, as it is kept at `spool`, and its format, told by its first bytes."""
    try:
        with spool.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise JobError(f"standard input is not kept at {spool}; pipe the rows in again") from None
    if start == b"PAR1":
        return File(name=STANDARD_INPUT, path=spool), "parquet"
    packed: Literal["gzip", "zstd"] | None = None
    if start.startswith(b"\x1f\x8b"):
        packed = "gzip"
    elif start == b"\x28\xb5\x2f\xfd":
        packed = "zstd"
    return File(name=STANDARD_INPUT, path=spool, compression=packed), "jsonl"
