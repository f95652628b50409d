"""What a call from Python may say, and the job and the invocation that come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from batchrunner import assemble, spec
from batchrunner.api.rows import await_free, beside
from batchrunner.errors import JobError
from batchrunner.sources import write_frame

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
_SWITCHES = ("fresh", "accept_change", "overwrite", "strict")
_TIMES = ("wait_lock_s", "grace_s", "flush_every_s")
WAYS = ("limit", *_SWITCHES, *_TIMES)
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
    call: tuple[Any, Any, str | Path | None],
    settings: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    rows_folder: Path | None = None,
    **more: Any,
) -> tuple[JobSpec, assemble.Invocation]:
    """The job and its invocation; rows in memory are written to disk, beside the run or in `rows_folder`.

    `call` is job, rows and out. Raises JobError.
    """
    (job, rows, out), given = call, dict(settings)
    given.pop("progress", None)
    params, simulate = given.pop("params", {}), given.pop("simulate", False)
    max_failed = str(given.pop("max_failed", 0))
    ways = {name: given.pop(name) for name in WAYS if name in given}
    overrides = _overrides(given)
    if rows is not None:
        kept = beside(out) if rows_folder is None else rows_folder / beside(out).name
        overrides["input.path"] = str(kept)
    texts = {name: str(value) for name, value in params.items()}
    loaded = _job(job, overrides, params=texts, environ=environ)
    if isinstance(job, Mapping) and out is None and loaded.output.dir is None:
        raise JobError("out: expected a directory for the run, since a dict has no place of its own; or output.dir")
    found = spec.run_dir(loaded, out=None if out is None else str(out), simulate=simulate)
    place = assemble.place_of(found, environ)
    if rows is not None:
        waits_s = float(ways.get("wait_lock_s", 0))
        write_frame(rows, kept, before=lambda: await_free(place.directory, waits_s))
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


def check_ways(given: Mapping[str, Any]) -> None:
    """Raises JobError with every fault of what is said of one call."""
    faults = []
    for name, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in (*_SWITCHES, "simulate") and not isinstance(value, bool):
            faults.append(f"{name}: expected True or False, got {value!r}")
        elif name in _TIMES and not (is_number and value >= 0):
            faults.append(f"{name}: expected seconds, 0 or more, got {value!r}")
        elif name == "limit" and not (isinstance(value, int) and is_number and value >= 1):
            faults.append(f"limit: expected a whole number of items, 1 or more, got {value!r}; leave it out for all")
        elif name == "progress" and not (isinstance(value, bool) or value is None or callable(value)):
            faults.append(f"progress: expected True, False or a function, got {value!r}")
    if faults:
        raise JobError(*faults)


def _job(job: Any, overrides: dict[str, Any], **given: Mapping[str, str]) -> JobSpec:
    if isinstance(job, Mapping):
        return spec.of_tree(job, overrides=overrides, **given)
    if not isinstance(job, str | PathLike | None):
        kind = type(job).__name__
        raise JobError(
            f"job: expected a job file, a rows file or a dict, got {kind}; rows in memory are given as rows="
        )
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
