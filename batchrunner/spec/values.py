"""Values that come as text: durations, shards, bounds, `--set`, and where a key is kept."""

from __future__ import annotations

import datetime
import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from batchrunner.errors import JobError

DURATION = "a duration such as 90, '90s', '10m' or '1h30m'"
KEY_REFERENCE = "'env:NAME', 'file:PATH', 'command:...' or 'none'"
SECRET_REFERENCE = "'env:NAME', 'file:PATH' or 'command:...'"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_PARTS = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d)\s*")


def parse_duration(text: str, *, where: str = "duration") -> float:
    """Seconds from '2h', '90s', '1h30m' or a plain number. Raises JobError that begins with `where`."""
    seconds = duration_s(text)
    if seconds is None:
        raise JobError(f"{where}: expected {DURATION}, got {text!r}")
    return seconds


def duration_s(text: str) -> float | None:
    """Seconds from a duration's text, None when it is none. Each unit once, larger ones first."""
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = _PARTS.findall(text)
    sizes = [_UNITS[unit] for _, unit in parts]
    if not parts or _PARTS.sub("", text) or sizes != sorted(set(sizes), reverse=True):
        return None
    return float(sum(Fraction(number) * Fraction(str(_UNITS[unit])) for number, unit in parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The slice `index` of `count` of a job's items, `index` from 0."""

    index: int
    count: int

    @property
    def folder(self) -> str:
        """Its place in the directory of the whole run."""
        return f"shard-{self.index}-of-{self.count}"


def parse_shard(text: str, *, where: str = "--shard") -> Shard:
    """The shard from 'I/N'. Raises JobError."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None or int(match[1]) >= int(match[2]):
        raise JobError(f"{where}: expected I/N with I from 0 to N-1, such as '0/4', got {text!r}")
    return Shard(index=int(match[1]), count=int(match[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxFailed:
    """How many items may fail before the run counts as failed: a number, or a share of all."""

    amount: Fraction
    percent: bool

    def allows(self, failed: int, total: int) -> bool:
        """Whether that many failures are within the bound."""
        return failed * 100 <= self.amount * total if self.percent else failed <= self.amount


NO_FAILURES = MaxFailed(amount=Fraction(0), percent=False)


def parse_max_failed(text: str, *, where: str = "--max-failed") -> MaxFailed:
    """The bound from '5' or '2%'. Raises JobError."""
    match = re.fullmatch(r"([0-9]{1,12}|[0-9]{1,3}(?:\.[0-9]{1,9})?(?=%))(%?)", text.strip())
    if match is None or (match[2] and Fraction(match[1]) > 100):
        raise JobError(f"{where}: expected a number of items such as '5', or a share such as '2%', got {text!r}")
    return MaxFailed(amount=Fraction(match[1]), percent=bool(match[2]))


def parse_set(text: str, *, where: str = "--set") -> tuple[str, Any]:
    """Key and value from 'key.path=VALUE'; VALUE is read as TOML, else it is a string. Raises JobError."""
    for sign in re.finditer("=", text):
        key = text[: sign.start()].strip()
        if key_parts(key):
            return key, read_value(text[sign.end() :])
    raise JobError(f"{where}: expected KEY=VALUE with a dotted key such as limits.concurrency=8")


def key_parts(key: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key, quoted ones unquoted; empty when it is no key."""
    if "=" in re.sub(r"\"[^\"]*\"|'[^']*'", "", key):
        return ()
    try:
        tree: Any = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()
    parts: list[str] = []
    while isinstance(tree, dict) and len(tree) == 1:
        ((part, tree),) = tree.items()
        parts.append(part)
    return tuple(parts) if tree == 0 and "\n" not in key else ()


def read_value(text: str) -> Any:
    """What a value given as text means: TOML where it is TOML, else the text. Dates stay text: no key takes one."""
    text = text.strip()
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document["value"]
    if len(document) != 1 or isinstance(value, datetime.date | datetime.time):
        return text
    return value


def is_key_reference(text: str) -> bool:
    """Whether the text says where a key is kept, in one of the known forms; a literal key does not."""
    kind, _, rest = text.partition(":")
    if kind == "env":
        return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest) is not None
    return text == "none" or (kind in ("file", "command") and bool(rest.strip()) and "\0" not in rest)
