"""What runs on the nodes of a cluster: one shard in each worker, and the actor that shares the rates among them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrunner import providers
from batchrunner.assemble import Invocation, fatal, invoke
from batchrunner.engines.crew import Look, Relay
from batchrunner.errors import BatchrunnerError
from batchrunner.limits.lease import Account, Slice, Want
from batchrunner.objects import STORE_VARIABLES
from batchrunner.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.engines.ground import Ground
    from batchrunner.limits import Lease
    from batchrunner.spec import JobSpec

LOOK_S = 0.5
"""How often a worker is looked at, and looks at itself."""


class Allowance:
    """The actor that shares the rates: slices by its own clock alone, so that the nodes' clocks never meet."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def take(self, lane: str, want: Want) -> Slice:
        return self._accounts[lane].take(want, time.monotonic())

    def pause(self, lane: str, seconds: float) -> None:
        self._accounts[lane].pause(seconds, time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is to do. Goes from the driver to the worker and is kept nowhere on the way."""

    job: JobSpec = field(repr=False)
    told: Mapping[str, Any] = field(repr=False)
    """The invocation, without what is of one process."""
    ground: Ground
    variables: Mapping[str, str] = field(repr=False)
    """Those of the driver's environment that the job names: keys among them."""


def variables(job: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """What a job takes from the environment, by name: a worker's own has the rest."""
    references = [*(job.provider.api_key or ()), *([job.provider.oauth2.client_secret] if job.provider.oauth2 else ())]
    names = [reference.removeprefix("env:") for reference in references if reference.startswith("env:")]
    if job.provider.kind is not None:
        names.append(providers.load(job.provider.kind).key_variable)
    names += [name for some in STORE_VARIABLES.values() for name in some]
    names += [name for name in environ if name.startswith("OTEL_")]
    return {name: environ[name] for name in (*names, "TESS_WORKSPACE_ID") if name in environ}


class Worker:
    """The actor that runs one shard, in a thread of its process."""

    def __init__(self) -> None:
        self._relay, self._signals = Relay(LOOK_S), Signals()
        self._turn = threading.Lock()
        self._summary: dict[str, Any] | None = None

    def run(self, order: Order, lease: Lease) -> dict[str, Any]:
        """The shard's summary. Asked again by a driver that could not reach it meanwhile, it goes on or tells it."""
        with self._turn:
            self._summary = self._summary or self._run(order, lease)
        return self._summary

    def _run(self, order: Order, lease: Lease) -> dict[str, Any]:
        environ = {**os.environ, **order.variables}
        place = order.ground.shard(order.told["shard"], environ)
        where = {"directory": place.directory, "address": place.address}
        invocation = Invocation(**{**order.told, **where, "lease": lease, "signals": self._signals})
        try:
            order.ground.check()
            return invoke(order.job, invocation, display=self._relay, environ=environ)
        except BatchrunnerError as error:
            return fatal(error, order.job, str(place), invocation.command)

    def look(self, since: int) -> Look:
        return self._relay.look(since)

    def hear(self, number: int) -> None:
        self._signals.receive(signal.Signals(number))
