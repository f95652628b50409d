"""Commits: numbered files, created exclusively. The highest valid one says which parts count.

Creating the next number fences a second writer, even where locks lie.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import RunError
from batchrunner.store import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
WAY_BACK = "restore it from a backup, or begin anew with --fresh"
KEPT = 8
"""How many commits stay for people to look back at."""

_OPENING = b'{"format":%d,"sha256":"'
_MIDDLE = b'","commit":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One immutable Parquet file of outcomes, all of one epoch."""

    name: str
    rows: int
    first_sequence: int
    last_sequence: int
    epoch: int
    size_bytes: int

    @property
    def sequences(self) -> tuple[int, int]:
        return self.first_sequence, self.last_sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The state of a run: everything up to `folded_through` is in the parts named here.

    `input` and `asked` are the caller's: what the input was found to be, and what the job asks.
    `rows` counts the rows of the whole input, `carried` names the file that maps them to outcomes
    of earlier epochs, `folded_segment` is the last journal segment that is no longer needed.
    `dropped` sums up what was spent on outcomes that a cleaning dropped.
    """

    run_id: str
    number: int
    epoch: int
    input: Mapping[str, Any]
    asked: Mapping[str, Any]
    rows: int
    parts: tuple[Part, ...] = ()
    carried: str | None = None
    folded_through: int = 0
    folded_segment: int = 0
    dropped: Mapping[str, Any] = field(default_factory=dict)
    newest: int = field(default=0, compare=False)
    """The highest number there was when this one was read, valid or not; not stored."""

    @property
    def forgot_input(self) -> bool:
        """Whether a salvage made it forget its input: until rows are matched anew, none can be told from its number."""
        return "fingerprint" in self.input and self.input["fingerprint"] is None

    def successor(self, **changes: Any) -> Commit:
        """The next commit, with these changes."""
        return replace(self, number=max(self.number, self.newest) + 1, newest=0, **changes)


_STORED = tuple(each.name for each in fields(Commit) if each.name != "newest")


def latest(directory: Path) -> Commit | None:
    """The highest valid commit, None where there are none.

    Raises RunError for a commit of a newer format, and when there are commits but no valid one.
    """
    numbers = _numbers(directory)
    for number in reversed(numbers):
        path = _path(directory, number)
        commit = unpack(path.read_bytes(), number, where=path)
        if commit is not None:
            return replace(commit, newest=numbers[-1])
    if numbers:
        raise RunError(f"{directory}: none of {len(numbers)} commits is valid; {WAY_BACK}")
    return None


def damaged(directory: Path) -> list[Path]:
    """Commits that cannot be read, although another may serve in their place."""
    found = []
    for number in _numbers(directory):
        path = _path(directory, number)
        with suppress(FileNotFoundError):  # Old ones go while we look.
            if unpack(path.read_bytes(), number, where=path) is None:
                found.append(path)
    return found


def older(directory: Path, commit: Commit) -> list[Path]:
    """The commits before this one, but for the last of them: should this one be damaged, that one rules."""
    return [_path(directory, number) for number in _numbers(directory) if number < commit.number][:-1]


def publish(directory: Path, commit: Commit, mode: int) -> None:
    """Make `commit` the state of the run, durably. Raises RunError when its number is taken."""
    path = _path(directory, commit.number)
    try:
        files.write_new(path, _pack(commit), mode)
    except FileExistsError as error:
        raise RunError(
            f"{path} was written by another process while this one held the run; stop one of them, then run again"
        ) from error
    for number in _numbers(directory)[:-KEPT]:
        files.discard(_path(directory, number))


def _path(directory: Path, number: int) -> Path:
    return directory / f"{number:06d}.json"


def _numbers(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.json") if path.stem.isdigit())


def _pack(commit: Commit) -> bytes:
    # A shallow copy: orjson writes the parts as they are, and there may be a thousand of them.
    body = orjson.dumps({name: getattr(commit, name) for name in _STORED})
    return b"".join([_OPENING % FORMAT, _digest(body), _MIDDLE, body, b"}\n"])


def unpack(data: bytes, number: int, *, where: object) -> Commit | None:
    """The commit of this number in `data`, None where it is damaged. Raises RunError for one of a newer format."""
    opening = _OPENING % FORMAT
    if not data.startswith(opening):
        _refuse_newer(data, where)
        return None
    start = len(opening) + 64 + len(_MIDDLE)
    body = data[start:-2]
    if data != b"".join([opening, _digest(body), _MIDDLE, body, b"}\n"]):
        return None
    found = orjson.loads(body)
    parts = tuple(Part(**part) for part in found.pop("parts"))
    commit = Commit(parts=parts, **found)
    return commit if commit.number == number else None


def _refuse_newer(data: bytes, where: object) -> None:
    try:
        found = orjson.loads(data)["format"]
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(found, int) and found > FORMAT:
        raise RunError(f"{where}: format {found} was written by a newer version of batchrunner; update it")


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
