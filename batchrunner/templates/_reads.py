"""What a template looks up: columns of the row, parameters of the job."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import meta, nodes

from batchrunner.templates._sandbox import GLOBALS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SHOWN_NAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """By name, whether they exist or not."""

    columns: frozenset[str]
    params: frozenset[str]
    row: bool
    """Whether the row is read as a whole, under the name `row`."""

    def faults(self, *, columns: Collection[str] | None, params: Collection[str]) -> Iterator[str]:
        """What cannot be read. `columns` is None where no row can be, empty where the rows are not known."""
        for name in sorted(self.params.difference(params)):
            yield f"no parameter {name!r}{_near(name, params)}"
        if columns is None:
            for name in sorted(self.columns) or ["row"] * self.row:
                yield f"only params can be read here, got {name!r}; with a prompt or messages, rows are data"
        elif columns:
            for name in sorted(self.columns.difference(columns)):
                yield f"no column or parameter {name!r}{_near(name, columns)}"


def reads_of(tree: nodes.Template, *, columns: Collection[str], params: Collection[str]) -> Reads:
    """What a template over these columns and parameters looks up."""
    free = meta.find_undeclared_variables(tree)
    # Jinja leaves out what it has a function of that name for; a column of that name goes first.
    free |= {node.name for node in tree.find_all(nodes.Name) if node.name in GLOBALS and node.name in columns}
    row = "row" in free and "row" not in columns
    named = free - {"params"} - ({"row"} if row else set())
    if row:
        named |= _members(tree, "row", columns)
    read = _members(tree, "params", params) if "params" in free else set()
    return Reads(columns=frozenset(named), params=frozenset(read), row=row)


def _members(tree: nodes.Template, name: str, known: Collection[str]) -> set[str]:
    """The members of an object that a template reads: all when it also uses the object as a whole."""
    accesses = [
        node
        for node in tree.find_all(nodes.Expr)
        if isinstance(node, nodes.Getattr | nodes.Getitem)
        and isinstance(node.node, nodes.Name)
        and node.node.name == name
    ]
    uses = sum(node.name == name for node in tree.find_all(nodes.Name))
    members = {_member(node, known) for node in accesses}
    whole = None in members or uses > len(accesses)
    return {member for member in members if member is not None} | ({*known} if whole else set())


def _member(node: nodes.Getattr | nodes.Getitem, known: Collection[str]) -> str | None:
    if isinstance(node, nodes.Getattr):
        return None if hasattr(dict, node.attr) and node.attr not in known else node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    listed = sorted(known)
    more = ", ..." if len(listed) > _SHOWN_NAMES else ""
    return f" (found: {', '.join(listed[:_SHOWN_NAMES]) or 'none'}{more})"
