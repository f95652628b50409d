"""A runner around a scripted wire: no socket, no file, a clock that does not wait for long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from batchrunner.errors import BadRow, RequestError
from batchrunner.events import Counts, Tally
from batchrunner.limits import Breaker, Budget, Concurrency, Estimator, Lane, RetryBudget
from batchrunner.records import Completion, Endpoint, Item, Reply, Request, Usage
from batchrunner.retry import Backoff
from batchrunner.runner import Brakes, Runner, Sessions
from batchrunner.stack import Answer, Channel, limited
from batchrunner.worker import Settings, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchrunner.records import Outcome

Step = RequestError | None
"""How one attempt ends: with an answer, or with this error."""


def trouble(**changes: Any) -> RequestError:
    facts: dict[str, Any] = {"verdict": "retry", "error_type": "server"}
    return RequestError("server answered 500", **(facts | changes))


def throttle(wait_s: float | None = None) -> RequestError:
    return trouble(error_type="rate_limit", scope="lane", wait_s=wait_s)


class Plain:
    """A dialect that puts the row's prompt on the wire."""

    name = "plain"

    def build(self, ask: Mapping[str, Any], endpoint: Endpoint, *, without: frozenset[str] = frozenset()) -> Request:
        if "prompt" not in ask:
            raise BadRow("no prompt")
        return Request(path="/", body=str(ask["prompt"]).encode(), stream=False, key=str(ask["prompt"]), prompt_chars=4)


class AsIs:
    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        return dict(columns)


class Free:
    def cost(self, model: str | None, usage: Usage, *, asked: str | None = None) -> float | None:
        return (usage.completion_tokens or 0) * 0.01


@dataclass
class ScriptedWire:
    """Plays steps in order, then answers everything; remembers what went out when, and how many at once."""

    script: list[Step] = field(default_factory=list)
    by_item: dict[str, list[Step]] = field(default_factory=dict)
    latency_s: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    out: int = 0
    most_out: int = 0
    order: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)
    met: set[frozenset[str]] = field(default_factory=set)
    """Items that were in flight together, pair by pair."""

    async def __call__(self, channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        self.sent[item_id] += 1
        self.times.append(anyio.current_time())
        self.order.append(item_id)
        self.met |= {frozenset((item_id, other)) for other in self.under_way}
        self.under_way.add(item_id)
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        try:
            await anyio.sleep(self.latency_s)
        finally:
            self.out -= 1
            self.under_way.discard(item_id)
        own = self.by_item.get(item_id)
        step = own.pop(0) if own else self.script.pop(0) if self.script else None
        if step is not None:
            self.throttled[item_id] += step.error_type == "rate_limit"
            raise RequestError(
                str(step),
                verdict=step.verdict,
                error_type=step.error_type,
                scope=step.scope,
                wait_s=step.wait_s,
                went_out=step.went_out,
            )
        completion = Completion(text=request.body.decode(), finish_reason="stop", usage=Usage(completion_tokens=1))
        return Answer(completion=completion, reply=Reply(status=200, headers={}))


class ListFeed:
    """Items of a list, in chunks; those that were skipped come again."""

    def __init__(self, items: Sequence[Item], *, chunk: int = 7, pause_s: float = 0.0) -> None:
        self.items, self.skipped, self._chunk, self._pause_s = list(items), [], chunk, pause_s
        self.given = 0

    async def chunk(self) -> Sequence[Item]:
        await anyio.sleep(self._pause_s)
        head, self.items = self.items[: self._chunk], self.items[self._chunk :]
        self.given += len(head)
        return head

    def skip(self, item: Item) -> None:
        self.skipped.append(item)

    def rewind(self) -> bool:
        self.items, self.skipped = self.skipped, []
        return bool(self.items)


def items(count: int, **columns: Any) -> list[Item]:
    return [
        Item(item_id=str(row), row=row, file="rows.jsonl", line=row + 1, columns={"prompt": str(row), **columns})
        for row in range(count)
    ]


class Play:
    """One run over a scripted wire. `outcomes` are those recorded, in order."""

    def __init__(
        self,
        wire: ScriptedWire,
        *,
        concurrency: int | str = 4,
        attempts: int = 5,
        down_s: float = 600.0,
        item_s: float = 3600.0,
        limits: Mapping[str, float] | None = None,
        budget: Budget | None = None,
        estimator: Estimator | None = None,
        route: Callable[[Item], str] = lambda item: "",
        no_wait: bool = True,
        probe_s: float = 0.05,
        keys: int = 1,
        sessions: Sessions | None = None,
        retries: Callable[[], RetryBudget] = RetryBudget,
    ) -> None:
        self.wire, self.outcomes, self.brakes = wire, list[Any](), Brakes()
        self.tally = Tally(total=0, before=Counts(), clock=anyio.current_time)
        self._concurrency, self._down_s, self._probe_s = concurrency, down_s, probe_s
        self._limits, self._retries = limits or {}, retries
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        uniform = (lambda low, high: 0.0) if no_wait else (lambda low, high: high)
        worker = Worker(
            provider=Plain(),  # type: ignore[arg-type]
            asks=AsIs(),
            call=limited(wire),
            backoff=Backoff(attempts=attempts, uniform=uniform),
            prices=Free(),
            estimator=estimator or Estimator(),
            budget=budget or Budget(),
            settings=Settings(endpoint=Endpoint(base_url="http://test"), item_s=item_s),
        )
        self.runner = Runner(
            worker=worker,
            record=self.record,
            route=route,
            open_channels=lambda name: [self.channel(f"{name} key {number}") for number in range(keys)],
            watch=self.tally,
            brakes=self.brakes,
            sessions=sessions,
        )

    def channel(self, name: str) -> Channel:
        lane = Lane(
            name or "the key",
            concurrency=Concurrency(self._concurrency),
            breaker=Breaker(down_s=self._down_s, probe_s=self._probe_s),
            requests_per_minute=self._limits.get("rpm"),
            tokens_per_minute=self._limits.get("tpm"),
            retries=self._retries(),
            tell=lambda event, **fields: self.told.append((event, fields)),
        )
        return Channel(lane=lane, access=None, label=name or "the key")  # type: ignore[arg-type]

    async def record(self, outcome: Outcome) -> None:
        await anyio.lowlevel.checkpoint()
        self.outcomes.append(outcome)

    async def run(self, given: Sequence[Item] | ListFeed) -> Play:
        await self.runner.run(given if isinstance(given, ListFeed) else ListFeed(given))
        return self

    def statuses(self) -> dict[str, str]:
        return {outcome.item_id: outcome.status for outcome in self.outcomes}
