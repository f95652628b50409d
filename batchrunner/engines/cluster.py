"""The Ray cluster: how we come to it, what its nodes have to have, and the actors on it."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from batchrunner import __version__
from batchrunner.engines.worker import Allowance, Worker
from batchrunner.errors import JobError, StoreError

try:
    import ray
    from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise JobError("--engine ray: the package ray is missing; pip install 'batchrunner[ray]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from batchrunner.engines.ground import Ground
    from batchrunner.limits.lease import Slice, Want

PROBE_S = 120.0
LAST_LOOK_S = 5.0
OWN_CLUSTER = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""For a cluster of our own: it tells nobody, and its workers do not stand back behind everything else."""
STORE_BYTES = 100 * 2**20
"""Of a cluster of our own: nothing large goes through it."""


class Lost(Exception):
    """Who was asked is no more, or cannot be reached."""


class RayLease:
    """The allowance as a worker has it. A slice that a lost worker had is over like any other."""

    def __init__(self, allowance: Any) -> None:
        self._allowance = allowance

    async def take(self, lane: str, want: Want) -> Slice:
        try:
            found: Slice = await self._allowance.take.remote(lane, want)
        except RayError as error:
            raise StoreError(
                f"the actor that shares the rates is lost: {str(error).strip().splitlines()[0]}"
            ) from error
        return found

    def pause(self, lane: str, seconds: float) -> None:
        self._allowance.pause.remote(lane, seconds)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster, which leaves our signals alone. Raises JobError."""
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address is None and "RAY_ADDRESS" not in os.environ:
        for name, value in OWN_CLUSTER.items():
            os.environ.setdefault(name, value)
        own = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    elif "://" in (address or ""):
        raise JobError(f"--ray-address: expected HOST:PORT or 'auto', on a node of the cluster, got {address!r}")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=True, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(f"--ray-address: {address or 'a cluster of its own'}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        with redirect_stdout(_WithoutRay(sys.stdout)):
            yield
    finally:
        with redirect_stdout(io.StringIO()):
            ray.shutdown()
        signal.signal(signal.SIGTERM, before)


class _WithoutRay(io.TextIOBase):
    """A stream without what Ray prints on its own account, such as the last words of a node: stdout is ours alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def probe(ground: Ground) -> None:
    """See that every node has what the workers need. Raises JobError that names the nodes that have not."""
    nodes = _nodes()
    if len(nodes) < 2:
        return
    ask = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked = {ask.options(scheduling_strategy=_on(node["NodeID"], soft=False)).remote(ground): node for node in nodes}
    faults = []
    for answer, node in asked.items():
        try:
            found = ray.get(answer, timeout=PROBE_S)
        except (RayError, GetTimeoutError) as error:
            found = f"{str(error).strip().splitlines()[-1]}; is batchrunner {__version__} installed there?"
        if found:
            faults.append(f"--engine ray: node {node['NodeManagerAddress']}: {found}")
    if faults:
        raise JobError(*faults)


def _nodes() -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def spread(workers: int) -> Iterator[str]:
    """A node for each worker, by their processors: where it is lost, Ray chooses another one."""
    sizes = {node["NodeID"]: float(node["Resources"].get("CPU", 0.0)) for node in _nodes()}
    places = {node: size for node, size in sizes.items() if size} or dict.fromkeys(sizes, 1.0)
    given = dict.fromkeys(places, 0)
    for _ in range(workers):
        node = min(places, key=lambda node: (given[node] + 1) / places[node])
        given[node] += 1
        yield node


def _on(node: str, *, soft: bool) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=soft)


def _answer(ground: Ground) -> str:
    """What keeps this node from taking a shard; nothing where it can."""
    try:
        ground.check()
    except JobError as error:
        return str(error)
    return ""


def hire_allowance(name: str) -> RayLease:
    """The lease, by an actor that is on this node and no other: the run ends with this one, and with no other."""
    here = ray.get_runtime_context().get_node_id()
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    hire = ray.remote(Allowance).options(name=name, scheduling_strategy=_on(here, soft=False), **options)
    return RayLease(hire.remote())


def hire_worker(node: str) -> Any:
    """A worker that is begun anew elsewhere where its node is lost; who asked it meanwhile hears that it was."""
    options = {"max_restarts": -1, "max_concurrency": 16}
    return ray.remote(Worker).options(scheduling_strategy=_on(node, soft=True), **options).remote()


def dismiss(actor: Any) -> None:
    ray.kill(actor)


def wait(answers: Sequence[Any], seconds: float) -> None:
    """Until one of the answers has come, or for so long."""
    if answers:
        ray.wait(list(answers), timeout=seconds)
    else:
        time.sleep(seconds)


def has_come(answer: Any) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])


def read(answer: Any) -> Any:
    """What was answered. Raises Lost."""
    try:
        return ray.get(answer, timeout=LAST_LOOK_S)
    except (ActorUnavailableError, GetTimeoutError) as error:
        raise Lost("it does not answer") from error
    except RayActorError as error:
        raise Lost(str(error).strip().splitlines()[0]) from error
