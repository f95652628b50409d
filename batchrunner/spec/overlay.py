"""What the environment and the command line lay over a job file."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner.spec.faults import Fault, Key
from batchrunner.spec.values import key_parts, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT: Mapping[str, str] = {
    "BATCHRUNNER_RPM": "limits.requests_per_minute",
    "BATCHRUNNER_TPM": "limits.tokens_per_minute",
    "BATCHRUNNER_CONCURRENCY": "limits.concurrency",
    "BATCHRUNNER_MAX_COST": "budget.max_cost_usd",
    "BATCHRUNNER_MAX_TOKENS_TOTAL": "budget.max_tokens_total",
    "BATCHRUNNER_DEADLINE": "budget.deadline",
}
"""Variables that stand for a key of the job. What is sent has none."""

RUNS_DIR_VARIABLE = "BATCHRUNNER_RUNS_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """The value of an override that came by a flag of its own, so that a fault names the flag and not `--set`.

    The value is the one the job file would hold: `read_value` makes it from text where it may be a number.
    """

    name: str
    value: Any


@dataclass(slots=True)
class Overlay:
    """A tree of values, with who set what beside the file, and what could not be set."""

    tree: dict[str, Any]
    labels: dict[Key, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def put(self, key: str, value: Any, label: str) -> None:
        """Set one dotted key; sections that are not there yet are made."""
        at = key_parts(key) or (key,)
        self.labels = {other: told for other, told in self.labels.items() if other[: len(at)] != at}
        self.labels[at] = label
        table: Any = self.tree
        for section in at[:-1]:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                self.faults.append(Fault(at=at, said=f"{section!r} is no table, so it holds no {at[-1]!r}"))
                return
        table[at[-1]] = copy.deepcopy(value)


def overlaid(tree: dict[str, Any], *, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Overlay:
    """The tree with the environment laid over it and the overrides over both, later ones winning."""
    overlay = Overlay(copy.deepcopy(tree))
    for variable, key in ENVIRONMENT.items():
        if text := environ.get(variable, "").strip():
            overlay.put(key, read_value(text), variable)
    for key, value in overrides.items():
        if isinstance(value, Flag):
            overlay.put(key, value.value, value.name)
        else:
            overlay.put(key, value, f"--set {key}")
    return overlay
