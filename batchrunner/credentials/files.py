"""Files that hold secrets: key files and environment files."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 64 * 1024
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_private(path: Path) -> tuple[str, int]:
    """The text and the mode of a file that holds secrets. Raises JobError when anyone can write to it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "no path"
        raise JobError(f"{path}: {said.lower()}") from None
    if mode & stat.S_IWOTH:
        raise JobError(f"{path} holds secrets and everyone can write to it (mode {mode & 0o777:04o}); chmod 600 it")
    if len(data) > _LARGEST:
        raise JobError(f"{path}: expected at most {_LARGEST} bytes")
    try:
        return data.decode("utf-8-sig"), mode
    except UnicodeDecodeError:
        raise JobError(f"{path}: expected UTF-8") from None


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file of KEY=VALUE lines. Raises JobError with every faulty line; no message holds a value.

    `export` in front, quotes, blank lines and comments are understood; nothing is expanded.
    """
    text, _ = read_private(path)
    variables: dict[str, str] = {}
    faults: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        value = _value(match[2]) if match else None
        if match is None or value is None:
            faults.append(f"{path} line {number}: expected KEY=VALUE, with the quotes of the value closed")
        else:
            variables[match[1]] = value
    if faults:
        raise JobError(*faults)
    return variables


def _value(written: str) -> str | None:
    """The value behind the sign, None when its quotes do not close."""
    text = written.strip()
    if text[:1] not in ("'", '"'):
        return re.split(r"\s#", written, maxsplit=1)[0].strip()
    match = re.fullmatch(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")(?:\s+#.*)?""", text)
    if match is None:
        return None
    if match[1] is not None:
        return match[1]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match[2])
