"""The scores of a job's answers, with what the runs of judges say."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from batchrunner.errors import JobError, RunError
from batchrunner.scores import compile_scores, verdict
from batchrunner.store import read_manifest, view_run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from batchrunner.scores import Judgements, Scorer
    from batchrunner.spec import ScoreSpec


def scorer_of(
    specs: Sequence[ScoreSpec], *, params: Mapping[str, str], base: Path, columns: Collection[str], simulate: bool
) -> Scorer | None:
    """The scores for rows with these columns; None of a job without any. Raises JobError.

    A judge of a simulated run is simulated too.
    """
    judges = {spec.name: spec for spec in specs if spec.kind == "judge"}
    for spec in judges.values():
        if "://" in (spec.run or ""):
            raise JobError(f"score {spec.name!r}: run: expected a directory, got {spec.run}; copy the run to a disk")

    @cache
    def judge(name: str) -> Judgements:
        run = base / (judges[name].run or "")
        simulated = simulate and not run.name.endswith(".simulated")
        return _judgements(run.with_name(f"{run.name}.simulated") if simulated else run, judges[name].field)

    return compile_scores(specs, params=params, base=base, columns=[*columns], judge=judge)


def _judgements(directory: Path, field: str | None) -> Judgements:
    """What a judge's run says of each item; the mean where its own matrix asks of one item several times."""
    if not (directory / "commits").is_dir():
        return {}
    try:
        view, manifest = view_run(directory), read_manifest(directory / "run.json") or {}
    except RunError:
        return {}
    repeated, said = bool((manifest.get("job") or {}).get("matrix")), dict[str, list[float]]()
    for batch in view.outcomes(["item_id", "status", "text"]):
        for row in batch.to_pylist():
            found = verdict(row["text"] or "", field) if row["status"] == "succeeded" else None
            if found is not None:
                item_id = row["item_id"].rsplit("/", 2)[0] if repeated else row["item_id"]
                said.setdefault(item_id, []).append(found)
    return {item_id: sum(found) / len(found) for item_id, found in said.items()}
