"""A run on a Ray cluster: a shard for each worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrunner.engines import cluster
from batchrunner.engines.driver import Driver
from batchrunner.engines.ground import Ground
from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.assemble import Invocation
    from batchrunner.events import Display
    from batchrunner.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How many workers, and of which cluster: of one that is started for this run alone where no address is given."""

    workers: int
    address: str | None = None


def run(
    job: JobSpec, invocation: Invocation, crew: Crew, *, display: Display, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Start or resume a job's run, a shard for each worker, and bring it to an end. Returns the summary object.

    Raises BatchrunnerError for whatever keeps it from starting.
    """
    if job.input.path == "-":
        raise JobError("--engine ray: expected an input that every worker can read, got standard input; give a file")
    ground = Ground.take(invocation.place, crew.workers, fresh=invocation.fresh, storage=job.storage, environ=environ)
    try:
        with cluster.connected(crew.address):
            cluster.probe(ground)
            driver = Driver(replace(job, base=job.base.resolve()), invocation, ground, display=display, environ=environ)
            return driver.run(crew.workers)
    finally:
        ground.leave()
