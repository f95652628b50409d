"""RUN on a command line: a run directory, or the job whose run is meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchrunner.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

_OPTIONS = (
    click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="Where RUN is a job file."),
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Where RUN is a job file."),
    click.option("--out", metavar="DIR", help="Where RUN is a job file."),
    click.option("--runs-dir", metavar="DIR", help="Where RUN is a job file."),
    click.option("--shard", metavar="I/N", help="Where RUN is a job file."),
    click.option("--simulate", is_flag=True, help="The simulated run of a job file."),
)


def run_options(command: F) -> F:
    """The options that lead from a job file to its run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job_file_options(command: F) -> F:
    """Those of them that lead to the directory of all shards."""
    for option in reversed((*_OPTIONS[:2], _OPTIONS[3], _OPTIONS[5])):
        command = option(command)
    return command


def sharded_directory(target: str, given: Mapping[str, Any]) -> Path:
    """The directory that TARGET means: itself, or that of a job file's shards. Raises RunError when there is none."""
    path = Path(target)
    if path.is_dir():
        return path
    if not path.is_file():
        raise RunError(f"{target}: no such directory or job file")
    from batchrunner.cli.options import directory_of, load_job

    return directory_of(load_job(target, {**given, "out": None}).job, given)


def find_run(target: str, given: Mapping[str, Any]) -> Path:
    """The run directory that TARGET means. Raises RunError when there is none."""
    path = Path(target)
    if path.is_dir():
        return _checked(path)
    if not path.is_file():
        raise RunError(f"{target}: no such run directory or job file")
    from batchrunner.cli.options import directory_of, load_job

    directory = directory_of(load_job(target, given).job, given)
    return _checked(directory)


def _checked(directory: Path) -> Path:
    if (directory / "commits").is_dir():
        return directory
    simulated = directory.with_name(f"{directory.name}.simulated")
    hint = f"; did you mean {simulated}?" if (simulated / "commits").is_dir() else ""
    raise RunError(f"{directory}: no run there{hint}")
