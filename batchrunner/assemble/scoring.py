"""The scores of a job's answers, with what the runs of judges say."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError, RunError
from batchrunner.scores import Judgement, compile_scores, verdict
from batchrunner.store import read_manifest, shard_folders, view_run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
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
            raise JobError(f"score.{spec.name}.run: expected a directory, got {spec.run}; copy the run to a disk")

    @cache
    def judge(name: str) -> Judgements:
        run = base / (judges[name].run or "")
        simulated = simulate and not run.name.endswith(".simulated")
        return _judgements(run.with_name(f"{run.name}.simulated") if simulated else run, judges[name].field)

    return compile_scores(specs, params=params, base=base, columns=[*columns], judge=judge)


def _judgements(directory: Path, field: str | None) -> Judgements:
    """What a judge's run says of each item, several times where its own matrix asks so."""
    said: dict[str, list[Judgement]] = {}
    for run in (directory, *shard_folders(directory)):
        if not (run / "commits").is_dir():
            continue
        with suppress(RunError):  # Nothing must keep the results from being made; what is missing is said then.
            for item_id, judgement in _of_run(run, field):
                said.setdefault(item_id, []).append(judgement)
    return said


def _of_run(run: Path, field: str | None) -> Iterator[tuple[str, Judgement]]:
    view = view_run(run)
    repeated = bool(((read_manifest(run / "run.json") or {}).get("job") or {}).get("matrix"))
    looked_at = _looked_at(view.commit.input)
    for batch in view.outcomes(["item_id", "status", "text", "started_at"]):
        for row in batch.to_pylist():
            found = verdict(row["text"] or "", field) if row["status"] == "succeeded" else None
            if found is not None:
                item_id = row["item_id"].rsplit("/", 2)[0] if repeated else row["item_id"]
                yield item_id, Judgement(value=found, as_of=max(row["started_at"], looked_at or row["started_at"]))


def _looked_at(known: Mapping[str, Any]) -> datetime | None:
    """Of when the results are that the judge has looked at last: what it settled before and still counts was found to
    ask the same of them, so that nothing was bought."""
    files = (known.get("fingerprint") or {}).get("files") or ()
    times = [file.get("mtime_ns") for file in files]
    if not times or None in times:
        return None
    return datetime.fromtimestamp(min(times) / 1e9, tz=UTC)
