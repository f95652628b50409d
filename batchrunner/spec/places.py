"""Where a run lives."""

from __future__ import annotations

import hashlib
import re
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
) -> Path:
    """The directory of a job's run.

    The first that is given: `out`, `runs_dir` with the job's name, `output.dir`, BATCHRUNNER_RUNS_DIR with the
    job's name, `runs/` beside the job or rows file. A simulated run and the shards of a run have their own.
    """
    directory = _whole_run(spec, runs_dir=runs_dir, out=out)
    if simulate:
        directory = directory if directory.name not in ("", "..") else directory.resolve()
        directory = directory.with_name(f"{directory.name}.simulated")
    return directory if shard is None else directory / shard.folder


def _whole_run(spec: JobSpec, *, runs_dir: str | None, out: str | None) -> Path:
    if out is not None:
        return _at(Path(), out)
    if runs_dir is not None:
        return _named(_at(Path(), runs_dir), spec)
    if spec.output.dir is not None:
        return _at(spec.base, spec.output.dir)
    if spec.runs_dir is not None:
        return _named(_at(Path(), spec.runs_dir), spec)
    return _named(_beside(spec) / "runs", spec)


def _at(base: Path, written: str) -> Path:
    path = Path(written)
    try:
        return base / path.expanduser()
    except RuntimeError:  # no such user: the tilde is part of the name
        return base / path


def _beside(spec: JobSpec) -> Path:
    """The directory of the job or rows file; of a glob, the last one without a pattern."""
    if spec.rows is None or spec.rows == "-" or "://" in spec.rows:
        return spec.base
    plain = re.split(r"[*?\[]", spec.rows, maxsplit=1)
    return Path(plain[0]).parent if len(plain) == 1 else Path(f"{plain[0]}x").parent


def _named(root: Path, spec: JobSpec) -> Path:
    directory = root / spec.name
    uses = [f"{name}={_step(spec.params[name])}" for name in spec.params_in_input_path]
    return directory / _short(",".join(uses)) if uses else directory


def _step(value: str) -> str:
    """A parameter's value as part of one step of a path; different values stay different."""
    return quote(value, safe=" @+:")


def _short(step: str) -> str:
    """File systems allow 255 bytes; shards and renamed runs need some of them."""
    if len(step) <= 200:
        return step
    return f"{step[:160]}-{hashlib.sha256(step.encode()).hexdigest()[:16]}"
