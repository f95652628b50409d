"""How the faults of a job are told: who set the key, which key, what was expected and what was found."""

from __future__ import annotations

import datetime
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Key = tuple[str | int, ...]
"""The way to a value of the job: section, key, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with a job. `alone` says that the sentence names its key itself."""

    at: Key
    said: str
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Who set which key: the file, unless a flag or an environment variable did."""

    file: str
    others: Mapping[Key, str]

    def sentence(self, fault: Fault) -> str:
        """The fault as people read it, headed by the flag, the variable or the file at fault."""
        for end in range(len(fault.at), 0, -1):
            if (label := self.others.get(fault.at[:end])) is not None:
                return _headed(label, fault, fault.at[end:])
        return _headed(self.file, fault, fault.at)


def _headed(label: str, fault: Fault, at: Key) -> str:
    return f"{label}: {fault.said}" if fault.alone or not at else f"{label}: {dotted(at)}: {fault.said}"


def dotted(at: Key) -> str:
    """A key as TOML writes it: `prices."gpt-4.1".input_per_million`, `messages[2].role`."""
    text = ""
    for part in at:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return text


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, else nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def expected(what: str, got: object) -> str:
    """The common sentence of a value that will not do."""
    return f"expected {what}, got {shown(got)}"


def shown(value: object) -> str:
    """A value of the job file, short, spelled as its writer knows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return f"the date or time {value.isoformat()}; put it in quotes"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and abs(value) > 10**60:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
