"""Where a run lives."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from batchrunner.spec.model import JobSpec
    from batchrunner.spec.values import Shard

_SUFFIXES = re.compile(r"\.(?:toml|jsonl|ndjson|json|parquet|csv)(?:\.(?:gz|zst))?$|\.(?:gz|zst)$", re.IGNORECASE)


def stem(path: str) -> str:
    """The name a job or rows file gives its run: `prompts` for `data/prompts.jsonl.gz`."""
    name = re.split(r"/", path.rstrip("/"))[-1]
    bare = _SUFFIXES.sub("", name)
    tidy = re.sub(r"[*?\[\]\x00-\x1f\x7f]+", "_", bare).strip()[:120]
    return tidy if tidy.strip("._") else "rows"


def run_dir(
    spec: JobSpec,
    *,
    runs_dir: str | None = None,
    out: str | None = None,
    shard: Shard | None = None,
    simulate: bool = False,
) -> Path | str:
    """The directory of a job's run, or its address where that is on an object store.

    The first that is given: `out`, `runs_dir` with the job's name, `output.dir`, BATCHRUNNER_RUNS_DIR with the
    job's name, `runs/` beside the job or rows file. A simulated run and the shards of a run have their own.
    """
    run = _whole_run(spec, runs_dir=runs_dir, out=out)
    if simulate:
        run = run.simulated()
    if shard is not None:
        run = run.below(shard.folder)
    return run.path if run.root is None else f"{run.root}{run.path.as_posix().strip('/')}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory, or with a root such as `s3://` what follows it."""

    path: Path
    root: str | None = None

    def below(self, *steps: str) -> _Place:
        return _Place(self.path.joinpath(*steps), self.root)

    def simulated(self) -> _Place:
        path = self.path if self.path.name not in ("", "..") else self.path.resolve()
        return _Place(path.with_name(f"{path.name}.simulated"), self.root)


def _whole_run(spec: JobSpec, *, runs_dir: str | None, out: str | None) -> _Place:
    if out is not None:
        return _at(Path(), out)
    if runs_dir is not None:
        return _named(_at(Path(), runs_dir), spec)
    if spec.output.dir is not None:
        return _at(spec.base, spec.output.dir)
    if spec.runs_dir is not None:
        return _named(_at(Path(), spec.runs_dir), spec)
    return _named(_beside(spec).below("runs"), spec)


def _at(base: Path, written: str) -> _Place:
    if (root := re.match(r"[a-z][a-z0-9+.-]*://", written)) is not None:
        return _Place(Path(written[root.end() :].strip("/")), root[0])
    path = Path(written)
    try:
        return _Place(base / path.expanduser())
    except RuntimeError:  # no such user: the tilde is part of the name
        return _Place(base / path)


def _beside(spec: JobSpec) -> _Place:
    """The directory of the job or rows file; of a glob, the last one without a pattern."""
    if spec.rows is None or spec.rows == "-":
        return _Place(spec.base)
    plain = re.split(r"[*?\[]", spec.rows, maxsplit=1)
    found = _at(Path(), plain[0] if len(plain) == 1 else f"{plain[0]}x")
    return _Place(found.path.parent, found.root)


def _named(root: _Place, spec: JobSpec) -> _Place:
    uses = [f"{name}={_step(spec.params[name])}" for name in spec.params_in_input]
    return root.below(spec.name, *([_short(",".join(uses))] if uses else []))


def _step(value: str) -> str:
    """A parameter's value as part of one step of a path; different values stay different."""
    return quote(value, safe=" @+:")


def _short(step: str) -> str:
    """File systems allow 255 bytes; shards and renamed runs need some of them."""
    if len(step) <= 200:
        return step
    return f"{step[:160]}-{hashlib.sha256(step.encode()).hexdigest()[:16]}"


def metrics_file(job: JobSpec, shard: Shard | None = None) -> Path | None:
    """Where the job wants its metrics, if anywhere; each shard has a file of its own: `NAME-shard-I-of-N.prom`."""
    if job.telemetry.metrics_file is None:
        return None
    path = _at(job.base, job.telemetry.metrics_file).path
    return path if shard is None else path.with_stem(f"{path.stem}-shard-{shard.index}-of-{shard.count}")
