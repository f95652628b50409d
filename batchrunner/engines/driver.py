"""The driver of a run on several workers: starts them, shows how they get on, takes up again what is lost."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from batchrunner.assemble import merge_runs
from batchrunner.engines import cluster
from batchrunner.engines.crew import Ended, Look, conclude, together, unfinished
from batchrunner.engines.worker import LOOK_S, Order, variables
from batchrunner.errors import BatchrunnerError, DeadlineReached, Interrupted
from batchrunner.spec import Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.assemble import Invocation
    from batchrunner.engines.ground import Ground
    from batchrunner.events import Display, Progress
    from batchrunner.spec import JobSpec

LOCK_S = 180.0
"""How long a shard that is resumed elsewhere waits for the lock of the worker that was lost."""
AGAIN_S = 1.0
LOSSES = 5
"""A shard that loses so many workers without an item settled between is given up: it may be what kills them."""
NOT_TOLD = ("directory", "address", "lease", "signals", "hears")
"""What is of one process, and of one machine."""
OURS = ("engine", "workers", "ray_address", "fresh")
"""Options of the whole run that are no shard's."""


@dataclass(slots=True, kw_only=True)
class Post:
    """One shard as the driver has it."""

    shard: Shard
    actor: Any
    answer: Any = None
    looking: Any = None
    lines: int = 0
    look: Look = field(default_factory=Look)
    away: bool = False
    """Its worker is lost, and no other has been seen yet."""
    again_at: float = 0.0
    lost: int = 0
    done_then: int = -1
    """How far the shard was when its last worker was lost."""
    summary: dict[str, Any] | None = None


class Driver:
    """Starts the workers, shows how they get on, starts what is lost anew, and puts the results together."""

    def __init__(
        self, job: JobSpec, invocation: Invocation, ground: Ground, *, display: Display, environ: Mapping[str, str]
    ) -> None:
        self.job, self.invocation, self.ground, self.display = job, invocation, ground, display
        self._environ = environ
        self._began_at, self._began = time.monotonic(), False
        self._heard, self._drained = 0, 0
        self._said: dict[str, bool] = {}
        self._posts: list[Post] = []

    def run(self, workers: int) -> dict[str, Any]:
        self._lease = cluster.hire_allowance(f"batchrunner-allowance-{self.ground.token}")
        self._posts = [
            Post(shard=Shard(index=number, count=workers), actor=cluster.hire_worker(node))
            for number, node in enumerate(cluster.spread(workers))
        ]
        try:
            with self.invocation.signals.listening(self._hear):
                for post in self._posts:
                    self._send(post)
                self._watch()
        finally:
            self._say_the_rest()
            self.display.ended()
            for post in self._posts:
                cluster.dismiss(post.actor)
        return self._conclude()

    def _hear(self) -> None:
        self._heard += 1

    def _send(self, post: Post) -> None:
        post.answer = post.actor.run.remote(self._order(post), self._lease)

    def _order(self, post: Post) -> Order:
        ours, job = self.invocation, self.job
        wait_s = max(ours.wait_lock_s, LOCK_S) if post.lost else ours.wait_lock_s
        if job.budget.deadline is not None:
            left_s = max(0.001, job.budget.deadline - (time.monotonic() - self._began_at))
            job = replace(job, budget=job.budget.model_copy(update={"deadline": left_s}))
        told = {each.name: getattr(ours, each.name) for each in fields(ours) if each.name not in NOT_TOLD}
        given = {name: value for name, value in ours.call.get("given", {}).items() if name not in OURS}
        shard = f"{post.shard.index}/{post.shard.count}"
        told |= {
            "shard": post.shard,
            "fresh": False,
            "wait_lock_s": wait_s,
            "call": {**ours.call, "given": {**given, "shard": shard}},
        }
        return Order(job=job, told=told, ground=self.ground, variables=variables(job, self._environ))

    # While they work

    def _watch(self) -> None:
        shown_at = self._began_at
        while any(post.summary is None for post in self._posts):
            cluster.wait([post.answer for post in self._posts if post.summary is None and post.answer], LOOK_S)
            self._pass_on_signals()
            for post in self._posts:
                if post.summary is None:
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
        if post.looking is not None:
            if not cluster.has_come(post.looking):
                return
            self._tell(post, post.looking)
        post.looking = post.actor.look.remote(post.lines)

    def _tell(self, post: Post, answer: Any) -> None:
        with suppress(cluster.Lost):
            look: Look = cluster.read(answer)
            if look.began is not None or look.progress is not None or not post.away:
                post.look, post.away = look, False
            for line in look.lines:
                self._say(line)
            post.lines += len(look.lines)

    def _say(self, line: str) -> None:
        """What several shards say alike is said once; nothing before the first line of them all."""
        if line not in self._said:
            self._said[line] = self._began
            if self._began:
                self.display.say(line)

    def _say_the_rest(self) -> None:
        for line in [line for line, is_out in self._said.items() if not is_out]:
            self._said[line] = True
            self.display.say(line)

    def _begin(self) -> None:
        if self._began or any(post.look.began is None and post.summary is None for post in self._posts):
            return
        self._began = True
        facts = [post.look.began for post in self._posts if post.look.began is not None]
        settled, total = (sum(int(fact[name]) for fact in facts) for name in ("settled", "total"))
        where = str(self.invocation.place)
        line = f"resuming {where}: {settled:,} of {total:,} settled" if settled else f"new run {where}"
        count = len(self._posts)
        whole = {"run": where, "settled": settled, "total": total, "workers": count}
        self.display.began(f"{line}, {count} worker{'s' * (count > 1)}", whole)
        self._say_the_rest()

    def progress(self) -> Progress:
        known = [post.look.progress for post in self._posts if post.look.progress is not None]
        lost = [post.shard.index for post in self._posts if post.away and post.summary is None]
        notes = [f"shard {', '.join(map(str, lost))} waits for another worker"] if lost else []
        return together(self.job.name, known, seconds=time.monotonic() - self._began_at, notes=notes)

    # How they end

    def _take(self, post: Post) -> None:
        if post.answer is None and time.monotonic() >= post.again_at:
            self._send(post)
        if post.answer is None or not cluster.has_come(post.answer):
            return
        try:
            summary = cluster.read(post.answer)
        except cluster.Lost as lost:
            self._lose(post, str(lost))
            return
        known = "items" in summary
        post.summary = summary if known else self._unfinished(post, summary["exit"], summary["reason"])
        self._tell(post, post.actor.look.remote(post.lines))
        self._quiet(post)

    def _lose(self, post: Post, why: str) -> None:
        """Ask again for a shard whose worker is lost, unless the run ends or the shard is what kills its workers.

        Until Ray has begun the worker anew, elsewhere, asking fails again and again.
        """
        if not post.away:
            done = post.look.progress.done if post.look.progress is not None else 0
            post.lost = post.lost + 1 if done <= post.done_then else 1
            post.done_then = max(done, post.done_then)
            self.display.say(f"the worker of {post.shard.folder} is lost, another will take the shard up: {why}")
        ends = self._ends(post, why)
        if ends is not None:
            post.summary = self._unfinished(post, ends.exit_code, str(ends))
            return
        self._quiet(post)
        post.away, post.looking, post.lines = True, None, 0
        post.answer, post.again_at = None, time.monotonic() + AGAIN_S

    def _unfinished(self, post: Post, code: int, why: str) -> dict[str, Any]:
        return unfinished(self.ground.shard(post.shard, self._environ), code, why)

    def _quiet(self, post: Post) -> None:
        """Nobody works there now: what was settled stays."""
        if post.look.progress is not None:
            still = replace(post.look.progress, per_minute=0.0, in_flight=0, left_s=None, notes=(), lanes=(), oldest=())
            post.look = Look(began=post.look.began, progress=still)

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
            run=str(self.invocation.place),
            shards=[post.summary for post in self._posts if post.summary is not None],
            seconds=time.monotonic() - self._began_at,
            command=self.invocation.command,
            max_failed=self.invocation.max_failed,
            skip_exit_code=self.invocation.skip_exit_code,
        )
        return conclude(ended, self._merge)

    def _merge(self) -> str:
        only = self._posts[0].summary
        if len(self._posts) == 1 and only is not None:
            return str(only["results"])
        merged = merge_runs(
            [self.ground.place],
            overwrite=self.invocation.overwrite,
            storage=self.job.storage,
            environ=self._environ,
        )
        return str(merged["results"])
