"""What the kinds of `[[score]]` need and take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.spec.faults import Fault, near
from batchrunner.spec.kinds import SCORE_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COMPARED = frozenset({"expected", "field"})
NEEDED: Mapping[str, tuple[str, ...]] = {
    "exact": ("expected",),
    "normalised": ("expected",),
    "contains": ("expected",),
    "number": ("expected",),
    "json": ("expected",),
    "regex": ("pattern",),
    "python": ("function",),
    "judge": ("run",),
}
TAKEN: Mapping[str, frozenset[str]] = {
    "exact": _COMPARED,
    "normalised": _COMPARED,
    "contains": _COMPARED | {"ignore_case"},
    "number": _COMPARED | {"tolerance"},
    "json": _COMPARED,
    "regex": _COMPARED | {"pattern"},
    "python": frozenset({"function"}),
    "judge": frozenset({"run", "field"}),
}
_EXAMPLES = {
    "expected": "a value or a template such as '{{ label }}'",
    "pattern": "a regular expression",
    "function": "a function as 'package.module:function'",
    "run": "the directory of the judge's run",
}


def score_faults(job: Mapping[str, Any]) -> Iterator[Fault]:
    """What a job's scores lack, or have too much, by their kind; names that are there twice."""
    scores = job.get("score", [])
    if not isinstance(scores, list):
        return
    names: set[Any] = set()
    for number, score in enumerate(scores):
        if not isinstance(score, dict) or score.get("kind") not in SCORE_KINDS:
            continue
        kind, name = str(score["kind"]), score.get("name")
        if isinstance(name, str) and name in names:
            yield Fault(at=("score", number, "name"), said=f"another score is called {name!r} already")
        names.add(name if isinstance(name, str) else None)
        for key in NEEDED[kind]:
            if score.get(key) in (None, ""):
                yield Fault(at=("score", number, key), said=f"expected {_EXAMPLES[key]} for kind {kind!r}, got nothing")
        for key in score:
            if key not in TAKEN[kind] and key in {"ignore_case", "tolerance", *_EXAMPLES, "field"}:
                hint = near(key, TAKEN[kind]) or f"; it takes {', '.join(sorted(TAKEN[kind]))}"
                yield Fault(at=("score", number, key), said=f"a score of kind {kind!r} takes no {key!r}{hint}")
