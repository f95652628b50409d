"""The runs of all shards as one: their results in one table, their books added up."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner import store
from batchrunner.assemble.places import bring_shards, put_file
from batchrunner.errors import JobError, RunError
from batchrunner.objects import below, is_address
from batchrunner.spec import StorageSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.assemble.places import Place


def merge_runs(
    named: Sequence[Place],
    *,
    out: str | None = None,
    overwrite: bool = False,
    storage: StorageSpec | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Join finished shard runs; `named` are their places, or one that holds them. Gives the summary object.

    Of those on object stores copies are merged, and the result is put there. Raises JobError where it is not said
    what the result is to be, RunError, RunLocked, StoreError.
    """
    storage, environ = storage or StorageSpec(), environ or {}
    if out is None and any(place.address for place in named):
        out = _common_address(named)
    here = [bring_shards(place, storage, environ) if place.address else place.directory for place in named]
    directories = [folder for path in here for folder in _shards_of(path)]
    shards = store.open_shards(directories)
    if out is None or not is_address(out):
        target = Path(out) if out else _common(directories) / store.RESULTS
        rows = store.merge_shards(shards, target, overwrite=overwrite)
        return _summary([shard.manifest for shard in shards], str(target), rows)
    with tempfile.TemporaryDirectory(prefix="batchrunner-") as scratch:
        target = Path(scratch) / store.RESULTS
        rows = store.merge_shards(shards, target)
        put_file(target, out, storage, environ, overwrite=overwrite)
    return _summary([shard.manifest for shard in shards], out, rows)


def _common_address(named: Sequence[Place]) -> str:
    if len(named) > 1 or named[0].address is None:
        raise JobError("--out: expected a file or an address for the results, since these runs are in several places")
    return below(named[0].address, store.RESULTS)


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


def _summary(manifests: Sequence[Mapping[str, Any]], target: str, rows: int) -> dict[str, Any]:
    first, costs = manifests[0], [manifest["cost_usd"] for manifest in manifests]
    return {
        "type": "merged",
        "name": first["name"],
        "results": target,
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
