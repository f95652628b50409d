"""Options that several commands share, and what they say to the job."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.assemble import Place
    from batchrunner.spec import JobSpec

F = TypeVar("F", bound="Callable[..., Any]")

EXIT_STATUS = """\b
Exit status:
   0  finished; failed items within --max-failed
   1  a bug in batchrunner
   2  usage, job file or input not valid; nothing was sent
   3  finished, more items rejected than allowed: look, redo
   4  finished, more items exhausted than allowed: run again
  10  run directory not found, damaged or not ours
  11  another process holds this run
  12  the provider refuses every request alike: fix first
  13  the job now asks something else: decide
  14  the deadline was reached: run again
  15  the provider is down: run again later
  16  results could not be written: make room, run again
  17  the budget was reached: decide
 129, 130, 143  hangup, Ctrl-C, SIGTERM: drained; run again
"""

OWN_CODES = {*range(5), *range(10, 18), 129, 130, 143}

_JOB = (
    click.option("--out", metavar="DIR", help="The run's directory, or its address: s3://, gs://, az://."),
    click.option("--runs-dir", metavar="DIR", help="Where run directories live; may be an address."),
    click.option("--provider", metavar="KIND", help="Provider: see `batchrunner providers`."),
    click.option("--base-url", metavar="URL", help="The provider's base URL."),
    click.option("--agent-id", metavar="ID", help="Agent to ask, where a row names none."),
    click.option("--model", metavar="NAME", help="Model to ask, where a row names none."),
    click.option("--rpm", metavar="N|none", help="Requests per minute."),
    click.option("--tpm", metavar="N|none", help="Tokens per minute."),
    click.option(
        "--concurrency", metavar="N|auto", help="Requests in flight; the gateway keeps to one a key (see `providers`)."
    ),
    click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the first N items: a kept pilot."),
    click.option("--shard", metavar="I/N", help="Only the items of shard I of N, I from 0."),
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Any job key, e.g. request.temperature=0."),
    click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="A parameter of the job."),
    click.option("--env-file", metavar="FILE", help="Read variables from FILE; the environment wins."),
    click.option("--max-cost", metavar="USD", help="Stop before the run has cost more."),
    click.option("--max-tokens-total", metavar="N", help="Stop before the run has used more tokens."),
    click.option("--simulate", is_flag=True, help="Against the embedded simulator: no key, no money."),
)

_KEYS = {
    "provider": ("--provider", "provider.kind"),
    "base_url": ("--base-url", "provider.base_url"),
    "agent_id": ("--agent-id", "request.agent_id"),
    "model": ("--model", "request.model"),
    "rpm": ("--rpm", "limits.requests_per_minute"),
    "tpm": ("--tpm", "limits.tokens_per_minute"),
    "concurrency": ("--concurrency", "limits.concurrency"),
    "lease": ("--lease", "limits.lease"),
    "max_cost": ("--max-cost", "budget.max_cost_usd"),
    "max_tokens_total": ("--max-tokens-total", "budget.max_tokens_total"),
    "deadline": ("--deadline", "budget.deadline"),
    "notify": ("--notify", "telemetry.notify"),
    "metrics_file": ("--metrics-file", "telemetry.metrics_file"),
}
_NUMBERS = {"rpm", "tpm", "concurrency", "max_cost", "max_tokens_total"}
_PATHS = {"lease", "metrics_file"}
"""On the command line relative to the working directory, in a job to the job."""


def job_options(command: F) -> F:
    """The options that say which job, changed how, and where its run lives."""
    for option in reversed(_JOB):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The job and the environment that a command line names."""

    job: JobSpec
    environ: Mapping[str, str]


def load_job(target: str, given: Mapping[str, Any], *, changes: Mapping[str, Any] | None = None) -> Asked:
    """The job that TARGET and the options describe, with `changes` on top. Raises JobError with every fault."""
    from pathlib import Path

    from batchrunner import spec
    from batchrunner.credentials import read_env_file

    environ = dict(os.environ)
    if given.get("env_file"):
        environ = {**read_env_file(Path(given["env_file"])), **environ}
    overrides: dict[str, Any] = dict(spec.parse_set(text) for text in given.get("sets") or ())
    for name, (flag, key) in _KEYS.items():
        text = given.get(name)
        if text is not None:
            value = spec.read_value(text) if name in _NUMBERS else str(Path.cwd() / text) if name in _PATHS else text
            overrides.pop(key, None)
            overrides[key] = spec.Flag(name=flag, value=value)
    overrides |= changes or {}
    params = dict(_pair(text) for text in given.get("params") or ())
    if target.endswith(".toml"):
        job = spec.load(Path(target), overrides=overrides, params=params, environ=environ)
    else:
        job = spec.for_rows(target, overrides=overrides, params=params, environ=environ)
    return Asked(job=job, environ=environ)


def place_of(asked: Asked, given: Mapping[str, Any]) -> Place:
    """Where the job's run lives, by its options. Raises JobError."""
    from pathlib import Path

    from batchrunner import spec
    from batchrunner.assemble import place_of

    job, state_dir = asked.job, Path(given["state_dir"]) if given.get("state_dir") else None
    if given.get("place"):
        written = given["place"]
        return place_of(written if "://" in written else Path(written), asked.environ, state_dir)
    shard = spec.parse_shard(given["shard"]) if given.get("shard") else None
    directory = spec.run_dir(
        job,
        runs_dir=given.get("runs_dir"),
        out=given.get("out"),
        shard=shard,
        simulate=bool(given.get("simulate")),
    )
    if isinstance(directory, Path):
        # `jobs/../runs` reads badly; where a link makes it another place than `runs`, it stays.
        short = Path(os.path.normpath(directory))
        directory = short if short.resolve() == directory.resolve() else directory
    return place_of(directory, asked.environ, state_dir)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--param: expected NAME=VALUE, got {text!r}")
    return name, value
