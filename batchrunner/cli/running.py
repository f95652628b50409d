"""What `run` and `redo` share: from options to a finished invocation and its last line."""

from __future__ import annotations

import contextlib
import json

import sys
from typing import TYPE_CHECKING, Any

import click

from batchrunner import spec
from batchrunner.assemble import Invocation, Redo, invoke
from batchrunner.cli.options import load_job
from batchrunner.console import display_for, summary_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.spec import JobSpec


def run_job(target: str, given: Mapping[str, Any], *, redo: Redo | None = None) -> int:
    """Run TARGET by the given options. Returns the exit code, having printed the last line."""
    asked = load_job(target, given)
    shard = spec.parse_shard(given["shard"]) if given.get("shard") else None
    invocation = Invocation(
        directory=directory_of(asked.job, given),
        shard=shard,
        limit=given.get("limit"),
        max_failed=spec.parse_max_failed(given.get("max_failed") or "0"),
        strict=bool(given.get("strict")),
        fresh=bool(given.get("fresh")),
        accept_change=bool(given.get("accept_change")),
        wait_lock_s=_seconds("--wait-lock", given.get("wait_lock")) or 0.0,
        grace_s=_seconds("--grace", given.get("grace")) or 0.0,
        patient=_stderr_is_terminal(),
        simulate=bool(given.get("simulate")),
        redo=redo,
        command=_command(target, given),
    )
    every_s = _seconds("--progress-every", given.get("progress_every")) or 30.0
    display = display_for(as_json=bool(given.get("as_json")), quiet=bool(given.get("quiet")), every_s=every_s)
    summary = invoke(asked.job, invocation, display=display, environ=asked.environ)
    _conclude(summary, as_json=bool(given.get("as_json")), quiet=bool(given.get("quiet")))
    return int(summary["exit"])


def directory_of(job: JobSpec, given: Mapping[str, Any]) -> Any:
    """Where the run lives: by --out, the job, or the default; apart from real ones when simulated; by shard."""
    directory = spec.run_dir(job, runs_dir=given.get("runs_dir"), out=given.get("out"))
    if given.get("simulate"):
        directory = directory.with_name(f"{directory.name}.simulated")
    if given.get("shard"):
        shard = spec.parse_shard(given["shard"])
        directory = directory / f"shard-{shard.index}-of-{shard.count}"
    return directory


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return spec.parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _stderr_is_terminal() -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


def _command(target: str, given: Mapping[str, Any]) -> str:
    """The command line as it was typed, to be shown as the way to go on."""
    import shlex

    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--accept-change")]
    return shlex.join(["batchrunner", *(words or ["run", target])])


def _conclude(summary: Mapping[str, Any], *, as_json: bool, quiet: bool) -> None:
    if not quiet and not as_json:
        with contextlib.suppress(OSError, ValueError):
            for line in summary_lines(summary):
                click.echo(line, err=True)
            sys.stderr.flush()
    last = json.dumps(summary, ensure_ascii=False) if as_json else summary["results"] or summary["run"]
    with contextlib.suppress(OSError, ValueError):
        print(last, flush=True)
