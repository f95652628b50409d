"""The runs of all shards as one: their results in one table, their books added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner import store
from batchrunner.errors import JobError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def merge_runs(named: Sequence[Path], *, out: Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Join finished shard runs; `named` are their directories, or one that holds them. Gives the summary object.

    Raises JobError where it is not said what the result is to be, RunError, RunLocked, StoreError.
    """
    directories = [folder for path in named for folder in _shards_of(path)]
    target = out or _common(directories) / store.RESULTS
    shards = store.open_shards(directories)
    rows = store.merge_shards(shards, target, overwrite=overwrite)
    return _summary([shard.manifest for shard in shards], target, rows)


def _shards_of(path: Path) -> list[Path]:
    found = store.shard_folders(path)
    if found or (path / "commits").is_dir():
        return found or [path]
    simulated = path.with_name(f"{path.name}.simulated")
    hint = f"; did you mean {simulated}?" if store.shard_folders(simulated) else ""
    raise RunError(f"{path}: no shard run and no shard-I-of-N folders there{hint}")


def _common(directories: Sequence[Path]) -> Path:
    parents = {directory.resolve().parent: directory.parent for directory in directories}
    if len(parents) > 1:
        raise JobError("--out: expected a file for the results, since these runs are in several directories")
    return next(iter(parents.values()))


def _summary(manifests: Sequence[Mapping[str, Any]], target: Path, rows: int) -> dict[str, Any]:
    first, costs = manifests[0], [manifest["cost_usd"] for manifest in manifests]
    return {
        "type": "merged",
        "name": first["name"],
        "results": str(target),
        "rows": rows,
        "shards": len(manifests),
        "runs": [manifest["run"] for manifest in manifests],
        "items": {name: sum(manifest["items"][name] for manifest in manifests) for name in first["items"]},
        **{
            name: sum(manifest[name] for manifest in manifests)
            for name in ("prompt_tokens", "completion_tokens", "possibly_billed")
        },
        "cost_usd": None if None in costs else sum(costs),
        "failed_by_type": failures_of(manifests),
        "labels": first["labels"],
    }


def failures_of(manifests: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By error type: how many, and the first in input order."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for kind, facts in manifest["failed_by_type"].items():
            known = found.get(kind, facts)
            earlier = min(known, facts, key=lambda one: one["first_row"])
            count = facts["count"] + (found[kind]["count"] if kind in found else 0)
            found[kind] = {**earlier, "count": count}
    return found
