"""What a call from Python may say, and the job and the invocation that come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from batchrunner import assemble, spec
from batchrunner.errors import JobError, RunLocked
from batchrunner.sources import write_frame
from batchrunner.store import lock_is_held, lock_path

if TYPE_CHECKING:
    from batchrunner.events import Progress
    from batchrunner.spec import JobSpec

KEYS = {
    "provider": "provider.kind",
    "base_url": "provider.base_url",
    "api_key": "provider.api_key",
    "agent_id": "request.agent_id",
    "model": "request.model",
    "prompt": "request.prompt",
    "system": "request.system",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "concurrency": "limits.concurrency",
    "max_cost": "budget.max_cost_usd",
    "deadline": "budget.deadline",
}
"""Short names of job keys."""
SECTIONS = (
    "input", "provider", "request", "limits", "retry", "timeouts", "budget", "prices", "output", "expect", "reuse",
    "matrix", "storage", "telemetry", "labels",
)  # fmt: skip
WAYS = ("limit", "fresh", "accept_change", "overwrite", "strict", "wait_lock_s", "grace_s", "flush_every_s")
"""What is said of one call rather than of the job."""

Section = Mapping[str, Any]


class Settings(TypedDict, total=False):
    """The keyword arguments of `run`, `arun`, `stream` and `plan`.

    Short names of job keys, sections of the job as dicts (they are laid over what the job says), and what is said of
    the call itself, as flags of the command line are.
    """

    provider: str | Section
    base_url: str
    api_key: str | list[str]
    agent_id: int | str
    model: str
    prompt: str
    system: str
    rpm: float | Literal["none"]
    tpm: float | Literal["none"]
    concurrency: int | Literal["auto"]
    max_cost: float
    deadline: float | str

    input: Section
    request: Section
    limits: Section
    retry: Section
    timeouts: Section
    budget: Section
    prices: Section
    output: Section
    expect: Section
    reuse: Section
    matrix: Section
    score: Sequence[Section]
    storage: Section
    telemetry: Section
    labels: Mapping[str, str]

    params: Mapping[str, object]
    simulate: bool
    progress: bool | Callable[[Progress], object]
    max_failed: int | str
    limit: int
    fresh: bool
    accept_change: bool
    overwrite: bool
    strict: bool
    wait_lock_s: float
    grace_s: float
    flush_every_s: float


def prepared(
    call: tuple[Any, Any, str | Path | None], settings: Mapping[str, Any], environ: Mapping[str, str], **more: Any
) -> tuple[JobSpec, assemble.Invocation]:
    """The job and its invocation; rows in memory are written to disk. `call` is job, rows and out. Raises JobError."""
    (job, rows, out), given = call, dict(settings)
    given.pop("progress", None)
    params, simulate = given.pop("params", {}), bool(given.pop("simulate", False))
    max_failed = str(given.pop("max_failed", 0))
    ways = {name: given.pop(name) for name in WAYS if name in given}
    overrides = _overrides(given)
    if rows is not None:
        overrides["input.path"] = str(_beside(out))
    texts = {name: str(value) for name, value in params.items()}
    loaded = _job(job, overrides, params=texts, environ=environ)
    if isinstance(job, Mapping) and out is None and loaded.output.dir is None:
        raise JobError("out: expected a directory for the run, since a dict has no place of its own; or output.dir")
    found = spec.run_dir(loaded, out=None if out is None else str(out), simulate=simulate)
    place = assemble.place_of(found, environ)
    if rows is not None:
        waits_s = float(ways.get("wait_lock_s", 0))
        write_frame(rows, _beside(out), before=lambda: _await_free(place.directory, waits_s))
    invocation = assemble.Invocation(
        directory=place.directory,
        address=place.address,
        max_failed=spec.parse_max_failed(max_failed),
        simulate=simulate,
        call={"given": {"simulate": simulate, "max_failed": max_failed}},
        command=f"batchrunner.run(out={str(place)!r}, ...)",
        **ways,
        **more,
    )
    return loaded, invocation


def _await_free(directory: Path, wait_s: float) -> None:
    """Rows that a run at work reads are not replaced under it. Raises RunLocked."""
    until = time.monotonic() + wait_s
    while lock_is_held(lock_path(directory)):
        if time.monotonic() >= until:
            raise RunLocked(f"{directory} is in use with other rows; wait for it (wait_lock_s), or give another out")
        time.sleep(0.2)


def _beside(out: str | Path | None) -> Path:
    """Where rows in memory are kept."""
    if out is None:
        raise JobError("out: expected a directory for the run, since rows in memory have no place of their own")
    if "://" in str(out):
        raise JobError(
            f"out: rows in memory are kept beside the run, so expected a directory of this machine, got {str(out)!r}; "
            "or write the rows to a file, and give that as the job"
        )
    return Path(f"{out}.rows.parquet").absolute()


def _job(job: Any, overrides: dict[str, Any], **given: Mapping[str, str]) -> JobSpec:
    if isinstance(job, Mapping):
        return spec.of_tree(job, overrides=overrides, **given)
    if job is not None and str(job).endswith(".toml"):
        return spec.load(Path(job), overrides=overrides, **given)
    path = overrides.pop("input.path", None) if job is None else job
    if path is None:
        raise JobError("job: expected a job file, a rows file, a dict, or rows in memory; got nothing")
    return spec.for_rows(str(getattr(path, "value", path)), overrides=overrides, **given)


def _overrides(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted job keys and their values. Raises JobError for a name that is none."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in SECTIONS:
            for key, inner in value.items():
                found[f"{name}.{json.dumps(key)}"] = spec.Flag(name=f"{name}.{key}", value=inner)
        elif name == "score" and isinstance(value, Sequence):
            found[name] = spec.Flag(name=name, value=[dict(each) for each in value])
        elif name == "score" or (name in SECTIONS and name not in KEYS):
            what = "a list of dicts" if name == "score" else "a dict, as the section of a job"
            raise JobError(f"{name}: expected {what}, got {type(value).__name__}")
        elif name in KEYS:
            found[KEYS[name]] = spec.Flag(name=name, value=value)
        else:
            known = [*KEYS, *SECTIONS, "score", "params", "simulate", "progress", "max_failed", *WAYS]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(dict.fromkeys(known))}"
            raise JobError(f"{name}: no such setting; {hint}")
    return found
