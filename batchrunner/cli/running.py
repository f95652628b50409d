"""What `run` and `redo` share: from options to a finished invocation and its last line."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from batchrunner import spec
from batchrunner.assemble import Invocation, invoke
from batchrunner.cli import plan
from batchrunner.cli.options import Asked, load_job, place_of
from batchrunner.console import display_for, summary_lines
from batchrunner.errors import JobError
from batchrunner.telemetry import MetricsFile, check_metrics_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.assemble import Redo
    from batchrunner.cli.notice import Notice
    from batchrunner.events import Display
    from batchrunner.spec import JobSpec

ONCE = ("--fresh", "--accept-change", "--salvage")
"""Said once: not part of the command that goes on."""
NOT_KEPT = ("notify",)
"""Told to each call anew: it may hold an address with a token in it, and the manifest has many readers."""
NOT_WITH_WORKERS = {
    "shard": "each worker has one",
    "limit": "it would count for each of them",
    "lease": "an actor shares the rates",
    "state_dir": "a shard may have to be resumed on another node",
}


def run_job(target: str, given: Mapping[str, Any], notice: Notice) -> int:
    """Run TARGET by the given options. Returns the exit code, having printed the last line."""
    return run_asked(load_job(target, given), target, given, notice)


def run_asked(asked: Asked, target: str, given: Mapping[str, Any], notice: Notice, *, redo: Redo | None = None) -> int:
    """The same for a job that is loaded already."""
    as_json, quiet = bool(given.get("as_json")), bool(given.get("quiet"))
    notice.command = asked.job.telemetry.notify
    shard = spec.parse_shard(given["shard"]) if given.get("shard") else None
    place = place_of(asked, given)
    invocation = Invocation(
        directory=place.directory,
        address=place.address,
        shard=shard,
        limit=given.get("limit"),
        max_failed=spec.parse_max_failed(given.get("max_failed") or "0"),
        skip_exit_code=given.get("skip_exit_code"),
        strict=bool(given.get("strict")),
        fresh=bool(given.get("fresh")),
        accept_change=bool(given.get("accept_change")),
        salvage=bool(given.get("salvage")),
        overwrite=bool(given.get("overwrite")),
        state_dir=Path(given["state_dir"]) if given.get("state_dir") else None,
        flush_every_s=_seconds("--flush-every", given["flush_every"]) if given.get("flush_every") else None,
        wait_lock_s=_seconds("--wait-lock", given.get("wait_lock") or "0"),
        grace_s=_seconds("--grace", given.get("grace") or "25s"),
        disk_wait_s=_seconds("--disk-wait", given.get("disk_wait") or "60s"),
        patient=_stderr_is_terminal(),
        simulate=bool(given.get("simulate")),
        redo=redo,
        command=_command(target),
        ways_out=_ways_out(target, given),
        call={"target": _from_anywhere(target), "given": _kept(given), "command": _command(target)},
        signals=notice.signals,
    )
    every_s = max(1.0, _seconds("--progress-every", given.get("progress_every") or "30s"))
    display = display_for(as_json=as_json, quiet=quiet, every_s=every_s)
    notice.about = {"name": asked.job.name, "run": str(place), "results": None}
    notice.again = invocation.command
    notice.metrics = _metrics(asked.job, shard)
    carry_out = _engine(given)
    summary = carry_out(asked.job, invocation, display=display, environ=asked.environ)
    conclude(summary, notice, as_json=as_json, quiet=quiet)
    return int(summary["exit"])


def _metrics(job: spec.JobSpec, shard: spec.Shard | None) -> MetricsFile | None:
    """For an invocation that fails before it has metrics of its own."""
    path = spec.metrics_file(job, shard)
    with contextlib.suppress(JobError):
        check_metrics_file()
        return None if path is None else MetricsFile(path)
    return None


class Engine(Protocol):
    """Carries an invocation out. Returns the summary object, or raises BatchrunnerError where nothing was begun."""

    def __call__(
        self, job: JobSpec, invocation: Invocation, *, display: Display, environ: Mapping[str, str]
    ) -> dict[str, Any]: ...


def _engine(given: Mapping[str, Any]) -> Engine:
    """This process, or what --engine names."""
    if (given.get("engine") or "local") == "local":
        if given.get("workers"):
            raise click.UsageError("--workers: expected together with --engine ray")
        return invoke
    if not given.get("workers"):
        raise click.UsageError("--engine ray: expected --workers N too; it is the number of shards")
    for name, why in NOT_WITH_WORKERS.items():
        if given.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')}: expected without --engine ray: {why}")
    from batchrunner.engines import ray

    return partial(ray.run, crew=ray.Crew(workers=given["workers"], address=given.get("ray_address")))


def conclude(summary: Mapping[str, Any], notice: Notice, *, as_json: bool, quiet: bool) -> None:
    """The summary for people on stderr, --notify, then the machine's last line on stdout."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not quiet and not as_json:
            for line in summary_lines(summary):
                click.echo(line, err=True)
            sys.stderr.flush()
    notice.send(summary)
    last = json.dumps(summary, ensure_ascii=False) if as_json else summary["results"] or summary["run"]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(last, flush=True)


def _seconds(option: str, text: str) -> float:
    return spec.parse_duration(text, where=option)


def _stderr_is_terminal() -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call as a later redo, from wherever it is called, takes them up."""
    places = ("out", "runs_dir", "env_file", "state_dir", "metrics_file", "lease")
    said = {name: value for name, value in given.items() if value and name not in NOT_KEPT}
    return {name: _from_anywhere(value) if name in places else value for name, value in said.items()}


def _from_anywhere(path: str) -> str:
    return path if path == "-" or "://" in path else str(Path(path).absolute())


def _ways_out(target: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The three commands of exit 13: keep both, buy again, see the difference."""
    words = ["batchrunner", "plan", target]
    for parameter in plan.command.params:
        value = given.get(str(parameter.name))
        if not isinstance(parameter, click.Option) or not value:
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [word for one in values for word in ([parameter.opts[0]] if one is True else [parameter.opts[0], one])]
    command = _command(target)
    return (
        f"keep both:           {command} --out ANOTHER_DIR",
        f"buy again:           {command} --accept-change",
        f"see the difference:  {shlex.join(map(str, words))} --diff",
    )


def _command(target: str) -> str:
    """The command line as it was typed, to be shown as the way to go on."""
    words = [word for word in sys.argv[1:] if word not in ONCE]
    return shlex.join(["batchrunner", *(words if words[:1] == ["run"] else ["run", target])])
