"""The shards of a run as actors of a Ray cluster, which share the rates and may lose their nodes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner import __version__, providers
from batchrunner.assemble import Invocation, fatal, invoke, merge_runs
from batchrunner.engines.crew import Ended, Look, Relay, conclude, together, unfinished
from batchrunner.engines.place import Place
from batchrunner.errors import BatchrunnerError, DeadlineReached, Interrupted, JobError
from batchrunner.limits.lease import Account, Slice, Want
from batchrunner.signals import Signals
from batchrunner.spec import Shard

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise JobError("--engine ray: the package ray is missing; pip install 'batchrunner[ray]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.events import Display, Progress
    from batchrunner.spec import JobSpec

LOOK_S = 0.5
LOCK_S = 180.0
"""How long a shard that is resumed elsewhere waits for the lock of the worker that was lost."""
LOSSES = 5
"""A shard that loses so many workers without an item settled between is given up: it may be what kills them."""
PROBE_S = 120.0


# In the workers


class Allowance:
    """The actor that shares the rates: slices by its own clock alone, so that the nodes' clocks never meet."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def take(self, lane: str, want: Want) -> Slice:
        return self._accounts[lane].take(want, time.monotonic())

    def pause(self, lane: str, seconds: float) -> None:
        self._accounts[lane].pause(seconds, time.monotonic())


class RayLease:
    """The allowance as a worker has it. A slice that a lost worker had is over like any other."""

    def __init__(self, allowance: Any) -> None:
        self._allowance = allowance

    async def take(self, lane: str, want: Want) -> Slice:
        found: Slice = await self._allowance.take.remote(lane, want)
        return found

    def pause(self, lane: str, seconds: float) -> None:
        self._allowance.pause.remote(lane, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is to do. Goes from the driver to the worker and is kept nowhere on the way."""

    job: JobSpec = field(repr=False)
    told: Mapping[str, Any] = field(repr=False)
    """The invocation, without what is of one process."""
    place: Place
    variables: Mapping[str, str] = field(repr=False)
    """Those of the driver's environment that the job names: keys among them."""


class Worker:
    """The actor that runs one shard, in a thread of its process."""

    def __init__(self) -> None:
        self._relay, self._signals = Relay(LOOK_S), Signals()
        self._turn = threading.Lock()
        self._summary: dict[str, Any] | None = None

    def run(self, order: Order, allowance: Any) -> dict[str, Any]:
        """The shard's summary. Asked again by a driver that could not reach it meanwhile, it goes on or tells it."""
        with self._turn:
            self._summary = self._summary or self._run(order, RayLease(allowance))
        return self._summary

    def _run(self, order: Order, lease: RayLease) -> dict[str, Any]:
        invocation = Invocation(**order.told, lease=lease, signals=self._signals)
        environ = {**os.environ, **order.variables}
        try:
            order.place.check()
            return invoke(order.job, invocation, display=self._relay, environ=environ)
        except BatchrunnerError as error:
            return fatal(error, order.job, invocation.directory, invocation.command)

    def look(self, since: int) -> Look:
        return self._relay.look(since)

    def hear(self, number: int) -> None:
        self._signals.receive(signal.Signals(number))


# In the driver


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
        with _connected(crew.address):
            _probe(place)
            job = replace(job, base=job.base.resolve())
            return Driver(job, invocation, place, display=display, variables=_variables(job, environ)).run(crew.workers)
    finally:
        place.leave()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster, which leaves our signals alone. Raises JobError."""
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address is None and "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"include_dashboard": False}
    elif "://" in (address or ""):
        raise JobError(f"--ray-address: expected HOST:PORT or 'auto', on a node of the cluster, got {address!r}")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=True, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(f"--ray-address: {address or 'a cluster of its own'}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _probe(place: Place) -> None:
    """See that every node has what the workers need. Raises JobError that names the nodes that have not."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            place
        ): node
        for node in nodes
    }
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


def _on(node: str, *, soft: bool) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=soft)


def _answer(place: Place) -> str:
    """What keeps this node from taking a shard; nothing where it can."""
    try:
        place.check()
    except JobError as error:
        return str(error)
    return ""


def _variables(job: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """What the job takes from the environment, by name: a worker's own has the rest."""
    references = [*(job.provider.api_key or ()), *([job.provider.oauth2.client_secret] if job.provider.oauth2 else ())]
    names = [reference.removeprefix("env:") for reference in references if reference.startswith("env:")]
    if job.provider.kind is not None:
        names.append(providers.load(job.provider.kind).key_variable)
    return {name: environ[name] for name in (*names, "TESS_WORKSPACE_ID") if name in environ}


@dataclass(slots=True, kw_only=True)
class Post:
    """One shard as the driver has it."""

    shard: Shard
    actor: Any
    answer: Any = None
    looking: Any = None
    lines: int = 0
    look: Look = field(default_factory=Look)
    lost: int = 0
    done_then: int = -1
    """How far the shard was when its last worker was lost."""
    summary: dict[str, Any] | None = None


class Driver:
    """Starts the workers, shows how they get on, starts what is lost anew, and puts the results together."""

    def __init__(
        self, job: JobSpec, invocation: Invocation, place: Place, *, display: Display, variables: Mapping[str, str]
    ) -> None:
        self.job, self.invocation, self.place, self.display = job, invocation, place, display
        self._variables = variables
        self._began_at, self._began = time.monotonic(), False
        self._heard, self._drained = 0, 0
        self._said: dict[str, None] = {}
        self._posts: list[Post] = []

    def run(self, workers: int) -> dict[str, Any]:
        here = ray.get_runtime_context().get_node_id()
        self._allowance = (
            ray.remote(Allowance)
            .options(
                name=f"batchrunner-allowance-{self.place.token}",
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=_on(here, soft=True),
            )
            .remote()
        )
        hire = ray.remote(Worker).options(max_restarts=-1, max_concurrency=4, scheduling_strategy="SPREAD")
        self._posts = [Post(shard=Shard(index=n, count=workers), actor=hire.remote()) for n in range(workers)]
        try:
            with self.invocation.signals.listening(self._hear):
                for post in self._posts:
                    self._send(post)
                self._watch()
        finally:
            self.display.ended()
            for post in self._posts:
                ray.kill(post.actor)
        return self._conclude()

    def _hear(self) -> None:
        self._heard += 1

    def _send(self, post: Post) -> None:
        post.answer = post.actor.run.remote(self._order(post), self._allowance)

    def _order(self, post: Post) -> Order:
        ours, job = self.invocation, self.job
        wait_s = max(ours.wait_lock_s, LOCK_S) if post.lost else ours.wait_lock_s
        if job.budget.deadline is not None:
            left_s = max(0.001, job.budget.deadline - (time.monotonic() - self._began_at))
            job = replace(job, budget=job.budget.model_copy(update={"deadline": left_s}))
        told = {each.name: getattr(ours, each.name) for each in fields(ours) if each.name not in ("lease", "signals")}
        given = {name: value for name, value in ours.call.get("given", {}).items() if name not in OURS}
        shard = f"{post.shard.index}/{post.shard.count}"
        told |= {
            "directory": self.place.directory / post.shard.folder,
            "shard": post.shard,
            "fresh": False,
            "wait_lock_s": wait_s,
            "call": {**ours.call, "given": {**given, "shard": shard}},
        }
        return Order(job=job, told=told, place=self.place, variables=self._variables)

    # While they work

    def _watch(self) -> None:
        shown_at = self._began_at
        while waiting := [post.answer for post in self._posts if post.summary is None]:
            ray.wait(waiting, timeout=LOOK_S)
            self._pass_on_signals()
            for post in self._posts:
                self._look(post)
                self._take(post)
            self._begin()
            now = time.monotonic()
            if self._began and now - shown_at >= min(self.display.period_s, 3600.0):
                shown_at = now
                self.display.progress(self.progress())

    def _pass_on_signals(self) -> None:
        heard = self.invocation.signals.heard[self._drained : self._heard]
        self._drained += len(heard)
        for number in heard:
            if self._drained == 1:
                self.display.say(f"draining {len(self._posts)} shards, for {self.invocation.grace_s:g} s at most")
            for post in self._posts:
                if post.summary is None:
                    post.actor.hear.remote(int(number))

    def _look(self, post: Post) -> None:
        if post.summary is not None:
            return
        if post.looking is not None:
            if not ray.wait([post.looking], timeout=0)[0]:
                return
            with suppress(RayError):
                post.look = ray.get(post.looking)
                for line in post.look.lines:
                    self._say(line)
                post.lines += len(post.look.lines)
        post.looking = post.actor.look.remote(post.lines)

    def _say(self, line: str) -> None:
        """What several shards say alike is said once."""
        if line not in self._said:
            self._said[line] = None
            self.display.say(line)

    def _begin(self) -> None:
        if self._began or any(post.look.began is None and post.summary is None for post in self._posts):
            return
        self._began = True
        facts = [post.look.began for post in self._posts if post.look.began is not None]
        settled, total = (sum(int(fact[name]) for fact in facts) for name in ("settled", "total"))
        directory = self.place.directory
        line = f"resuming {directory}: {settled:,} of {total:,} settled" if settled else f"new run {directory}"
        whole = {"run": str(directory), "settled": settled, "total": total, "workers": len(self._posts)}
        self.display.began(f"{line}, {len(self._posts)} workers", whole)

    def progress(self) -> Progress:
        known = [post.look.progress for post in self._posts if post.look.progress is not None]
        lost = [post.shard.index for post in self._posts if post.lost and post.summary is None and not post.look.began]
        notes = [f"shard {', '.join(map(str, lost))} waits for another worker"] if lost else []
        return together(self.job.name, known, seconds=time.monotonic() - self._began_at, notes=notes)

    # How they end

    def _take(self, post: Post) -> None:
        if post.summary is not None or not ray.wait([post.answer], timeout=0)[0]:
            return
        try:
            summary = ray.get(post.answer)
        except RayActorError as error:
            self._lose(post, str(error).strip().splitlines()[0])
            return
        directory = self.place.directory / post.shard.folder
        post.summary = summary if "items" in summary else unfinished(directory, summary["exit"], summary["reason"])
        self._look_last(post)

    def _look_last(self, post: Post) -> None:
        with suppress(RayError, GetTimeoutError):
            post.look = ray.get(post.actor.look.remote(post.lines), timeout=5.0)
            for line in post.look.lines:
                self._say(line)

    def _lose(self, post: Post, why: str) -> None:
        """Resume a shard whose worker is lost, unless the run ends or the shard is what kills its workers."""
        directory = self.place.directory / post.shard.folder
        done = post.look.progress.done if post.look.progress is not None else 0
        post.lost = post.lost + 1 if done <= post.done_then else 1
        post.done_then = max(done, post.done_then)
        ends = self._ends(post, why)
        if ends is not None:
            post.summary = unfinished(directory, ends.exit_code, str(ends))
            return
        self.display.say(f"the worker of {post.shard.folder} is lost, another takes the shard up: {why}")
        post.look, post.looking, post.lines = Look(progress=post.look.progress), None, 0
        self._send(post)

    def _ends(self, post: Post, why: str) -> BatchrunnerError | None:
        deadline_s = self.job.budget.deadline
        if self._heard:
            return Interrupted(self.invocation.signals.heard[0])
        if deadline_s is not None and time.monotonic() - self._began_at > deadline_s:
            return DeadlineReached(f"the deadline of {deadline_s:g} s was reached")
        if post.lost > LOSSES:
            return BatchrunnerError(f"its worker was lost {post.lost} times without an item settled: {why}")
        return None

    def _conclude(self) -> dict[str, Any]:
        ended = Ended(
            job=self.job,
            directory=self.place.directory,
            shards=[post.summary for post in self._posts if post.summary is not None],
            seconds=time.monotonic() - self._began_at,
            command=self.invocation.command,
            max_failed=self.invocation.max_failed,
            skip_exit_code=self.invocation.skip_exit_code,
        )
        return conclude(ended, self._merge)

    def _merge(self) -> Path:
        return Path(merge_runs([self.place.directory], overwrite=self.invocation.overwrite)["results"])


OURS = ("engine", "workers", "ray_address", "fresh")
"""Options of the whole run that are no shard's."""
