"""The README's table of the log's events is the list of those that the code writes."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import batchrunner

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(batchrunner.__file__).parent
README = (ROOT.parent / "README.md").read_text()
EMITS = {"emit", "tell", "_tell", "warn"}
EVENT = re.compile(r"[a-z]+(_[a-z]+)+")


def written() -> dict[str, set[str]]:
    """Every event of the source, with the fields that are named where it is written."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and name_of(node.func) in EMITS:
                for event in names(node.args[0]):
                    found[event] |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def name_of(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def names(argument: ast.expr) -> Iterator[str]:
    if isinstance(argument, ast.IfExp):
        yield from names(argument.body)
        yield from names(argument.orelse)
    if isinstance(argument, ast.Constant) and EVENT.fullmatch(str(argument.value)):
        yield str(argument.value)


def documented() -> dict[str, set[str]]:
    table = README[README.index("| event | fields | |") : README.index("## From cron")]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:] if line.startswith("|")]
    return {
        event: set(fields.strip().split(", ")) for events, fields in rows for event in re.findall(r"`(\w+)`", events)
    }


def test_each_event_is_in_the_readme_and_each_of_the_readme_is_written():
    assert len(written()) > 20
    assert set(documented()) == set(written())


def test_each_field_that_an_event_is_given_is_in_its_row():
    table = documented()

    assert {event: fields - table[event] for event, fields in written().items() if fields - table[event]} == {}


def test_an_event_is_always_named_where_it_is_written():
    """Else neither this test nor a reader finds it; `event` is one that is handed on."""
    calls = [
        (path, node)
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and node.args and name_of(node.func) == "emit"
    ]

    unnamed = [(path, node) for path, node in calls if not list(names(node.args[0]))]

    assert len(calls) > 5
    assert [f"{path}:{node.lineno}" for path, node in unnamed if getattr(node.args[0], "id", "") != "event"] == []
