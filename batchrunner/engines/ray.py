"""A run on a Ray cluster: a shard for each worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrunner import providers
from batchrunner.engines import cluster
from batchrunner.engines.driver import Driver
from batchrunner.engines.place import Place
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
    place = Place.take(invocation.directory.absolute(), crew.workers, fresh=invocation.fresh)
    try:
        with cluster.connected(crew.address):
            cluster.probe(place)
            job = replace(job, base=job.base.resolve())
            return Driver(job, invocation, place, display=display, variables=_variables(job, environ)).run(crew.workers)
    finally:
        place.leave()


def _variables(job: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """What the job takes from the environment, by name: a worker's own has the rest."""
    references = [*(job.provider.api_key or ()), *([job.provider.oauth2.client_secret] if job.provider.oauth2 else ())]
    names = [reference.removeprefix("env:") for reference in references if reference.startswith("env:")]
    if job.provider.kind is not None:
        names.append(providers.load(job.provider.kind).key_variable)
    return {name: environ[name] for name in (*names, "TESS_WORKSPACE_ID") if name in environ}
