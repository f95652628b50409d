"""One invocation of a job, from the command line's words to the summary."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner.assemble.carry_out import carry_out
from batchrunner.assemble.places import copies_of, mirror_of, put_address_aside
from batchrunner.assemble.prepare import Prepared, get_ready, prepare
from batchrunner.assemble.table import carry_of
from batchrunner.errors import JobError, RunError, RunLocked
from batchrunner.limits import LeaseFile
from batchrunner.store import lock_is_held, lock_path, open_run, unsure_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.assemble.invocation import Invocation
    from batchrunner.events import Display
    from batchrunner.spec import JobSpec


LARGE_BYTES = 50_000_000
"""Of input: looking through it takes long enough to say so."""


def invoke(job: JobSpec, invocation: Invocation, *, display: Display, environ: Mapping[str, str]) -> dict[str, Any]:
    """Start or resume a job's run and bring it to an end. Returns the summary object.

    Raises BatchrunnerError for whatever keeps it from starting; nothing has been sent then.
    """
    directory = invocation.directory
    stdin = job.input.path == "-"
    mirror = mirror_of(invocation.place, job.storage, environ, wait_s=invocation.disk_wait_s)
    prepared = None
    if not (directory / "commits").exists() and not stdin:
        prepared = _prepared(job, invocation, environ, display)
    if invocation.wait_lock_s and lock_is_held(lock_path(directory)):
        display.say(f"waiting for the process that holds {invocation.place}, {invocation.wait_lock_s:g} s at most")
    if invocation.fresh and (mirror or (directory / "commits").exists()):
        _begin_anew(job, invocation, environ, display)
    with (
        _sharing(job, invocation, display) as sharing,
        open_run(
            directory,
            wait_s=invocation.wait_lock_s,
            mode=job.output.mode,
            salvage=invocation.salvage,
            state_dir=None if mirror else invocation.state_dir,
            mirror=mirror,
        ) as held,
    ):
        held.flush_every_s = invocation.flushed_every_s
        prepared = prepared or _prepared(job, invocation, environ, display, remembered=held.commit.input)
        return carry_out(held, prepared, sharing, display)


@contextmanager
def _sharing(job: JobSpec, invocation: Invocation, display: Display) -> Iterator[Invocation]:
    """The invocation with the lease that the job names, if it has none yet. Raises JobError."""
    if invocation.lease is not None or job.limits.lease is None:
        yield invocation
        return
    path = job.base / Path(job.limits.lease).expanduser()
    with closing(LeaseFile(path)) as lease:
        if (kind := unsure_file_system(path)) is not None:
            display.say(f"{path} is on {kind}, where locks may not hold; a lease is a file on a local disk of one host")
        yield replace(invocation, lease=lease)


def _begin_anew(job: JobSpec, invocation: Invocation, environ: Mapping[str, str], display: Display) -> None:
    """`--fresh`: once the job has been found sound, put the old run aside while nobody else can take it."""
    if job.input.path != "-":
        _prepared(job, invocation, environ, display)
    mirror = mirror_of(invocation.place, job.storage, environ)
    try:
        with open_run(invocation.directory, wait_s=invocation.wait_lock_s, mode=job.output.mode, mirror=mirror):
            if mirror:
                put_address_aside(mirror, job.storage, environ)
            else:
                put_directory_aside(invocation.directory)
    except RunLocked:
        raise
    except RunError:
        # A damaged run is what --fresh is recommended for; but not one that somebody has, a newer version for one.
        if mirror or lock_is_held(lock_path(invocation.directory)):
            raise
        put_directory_aside(invocation.directory)


def _prepared(
    job: JobSpec,
    invocation: Invocation,
    environ: Mapping[str, str],
    display: Display,
    *,
    remembered: Mapping[str, Any] | None = None,
) -> Prepared:
    spool = invocation.directory / "stdin.jsonl"
    copies = copies_of(job.storage, environ, invocation.state_dir)
    ready = get_ready(job, environ=environ, simulate=invocation.simulate, spool=spool, copies=copies)
    size = ready.source.size_bytes
    if size >= LARGE_BYTES:
        display.say(f"looking through {size / 1e6:,.0f} MB of input")
    prepared = prepare(ready, remembered=remembered, shard=invocation.shard, simulate=invocation.simulate)
    carry_of(prepared).schema(prepared.checked)  # A column to keep that is not there is a fault now, not at the end.
    if invocation.strict:
        _refuse_bad_rows(prepared)
    return prepared


def _refuse_bad_rows(prepared: Prepared) -> None:
    """With --strict, a row that cannot be asked is a fault of the input."""
    faults = []
    for item in prepared.ready.source.rows():
        fault = prepared.fault_of(item)
        if fault is not None:
            where = f"{item.file} line {item.line}" if item.line is not None else f"{item.file} row {item.row}"
            faults.append(f"{where}: {fault}")
        if len(faults) == 10:
            break
    if faults:
        raise JobError(*faults)


def put_directory_aside(directory: Path) -> None:
    """`--fresh`: rename the old run to DIR.1, or the next number that is free; nothing is deleted."""
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    directory.rename(aside)
