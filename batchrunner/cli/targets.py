"""RUN on a command line: a run directory, or the job whose run is meant."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchrunner.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.assemble import Place
    from batchrunner.spec import StorageSpec

F = TypeVar("F", bound="Callable[..., Any]")
ROWS = (".jsonl", ".ndjson", ".parquet", ".csv", ".gz", ".zst")
"""How the address of a rows file ends; any other is a run's."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run to be read: its files, or a copy of them where it is on an object store."""

    directory: Path
    address: str | None = None
    alive: bool | None = None
    """Whether a process is at work on it; None where its files tell."""

    def __str__(self) -> str:
        return self.address or str(self.directory)


def locate_shards(target: str, given: Mapping[str, Any]) -> Located:
    """Where TARGET, or all shards of a job file, should be. Raises RunError when that cannot be told."""
    if not Path(target).exists() and "://" not in target:
        raise RunError(f"{target}: no such directory or job file")
    return locate(target, {**given, "out": None})


def find_run(target: str, given: Mapping[str, Any]) -> Path:
    """The files of the run that TARGET means. Raises RunError when there is none."""
    return find_place(target, given).directory


def find_place(target: str, given: Mapping[str, Any], *, results: bool = False, before: Found | None = None) -> Found:
    """The run that TARGET means, to be read; its results too, if asked for. Raises RunError when there is none.

    What was found `before` is brought up to date.
    """
    located = locate(target, given)
    if located.place.address is None:
        return Found(directory=_checked(located.place.directory))
    from batchrunner.assemble import bring

    into = before.directory if before is not None and before.directory != located.place.directory else None
    brought = bring(located.place, located.storage, located.environ, results=results, into=into)
    return Found(directory=brought.directory, address=located.place.address, alive=brought.alive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a run should be, and what its object store is reached with."""

    place: Place
    storage: StorageSpec
    environ: Mapping[str, str]


def locate(target: str, given: Mapping[str, Any]) -> Located:
    """Where the run that TARGET means should be. Raises RunError when that cannot be told."""
    from batchrunner import spec
    from batchrunner.assemble import Place, place_of

    path = Path(target)
    if path.name == "results.parquet" and (path.parent / "commits").is_dir():
        path = path.parent
    if path.is_dir():
        return Located(place=Place(directory=path), storage=spec.StorageSpec(), environ=os.environ)
    if "://" in target and not target.endswith(ROWS):
        return Located(place=place_of(target, os.environ), storage=spec.StorageSpec(), environ=os.environ)
    if not path.is_file() and "://" not in target:
        raise RunError(f"{target}: no such run directory or job file{_near(path)}")
    from batchrunner.cli.options import load_job
    from batchrunner.cli.options import place_of as place_of_job

    asked = load_job(target, given)
    return Located(place=place_of_job(asked, given), storage=asked.job.storage, environ=asked.environ)


def _near(path: Path) -> str:
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def _checked(directory: Path) -> Path:
    if (directory / "commits").is_dir():
        return directory
    simulated = directory.with_name(f"{directory.name}.simulated")
    hint = f"; did you mean {simulated}?" if (simulated / "commits").is_dir() else ""
    shard = min(directory.glob("shard-*-of-*/commits"), default=None)
    if shard is not None:
        hint = f", but those of shards; give one of them, such as {shard.parent}"
    raise RunError(f"{directory}: no run there{hint}")
