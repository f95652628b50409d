"""A runner around the real wire: real sockets, no file, waits that are as short as they may be."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from playing import AsIs, Free, ListFeed

from batchrunner import providers
from batchrunner.access import Access
from batchrunner.events import Counts, Tally
from batchrunner.limits import Breaker, Budget, Concurrency, Estimator, Lane
from batchrunner.records import Endpoint, Item
from batchrunner.retry import Backoff
from batchrunner.runner import Brakes, Runner
from batchrunner.stack import Channel, build_stack
from batchrunner.transport import Clocks, Wire
from batchrunner.worker import Settings, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from batchrunner.records import Outcome

    Uniform = Callable[[float, float], float]

OPENAI = providers.load("openai")


class WirePlay:
    """One run of a job without a file, over one wire and one lane. `outcomes` are those recorded, in order."""

    def __init__(
        self, wire: Wire, url: str, *, concurrency: int = 1, attempts: int = 5, uniform: Uniform = min
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.brakes = Brakes()
        endpoint = Endpoint(base_url=OPENAI.normalise(url))
        lane = Lane("the key", concurrency=Concurrency(concurrency), breaker=Breaker(down_s=600.0, probe_s=0.05))
        line = wire.prepare(url, OPENAI.headers("KEY", endpoint))
        channel = Channel(lane=lane, access=Access(line), label="the key")
        self.runner = Runner(
            worker=Worker(
                provider=OPENAI,
                asks=AsIs(),
                call=build_stack(wire, OPENAI, max_wait_s=300.0),
                backoff=Backoff(attempts=attempts, uniform=uniform),
                prices=Free(),
                estimator=Estimator(),
                budget=Budget(),
                settings=Settings(endpoint=endpoint, item_s=3600.0),
            ),
            record=self.record,
            route=lambda item: "",
            open_channels=lambda name: [channel],
            watch=Tally(total=0, before=Counts(), clock=anyio.current_time),
            brakes=self.brakes,
        )

    async def record(self, outcome: Outcome) -> None:
        await anyio.lowlevel.checkpoint()
        self.outcomes.append(outcome)

    async def run(self, count: int, *, stream: bool = False, prompt: str = "hi") -> WirePlay:
        asked = [{"role": "user", "content": prompt}]
        columns = {"model": "m", "stream": stream, "messages": asked}
        await self.runner.run(
            ListFeed(
                [
                    Item(item_id=str(row), row=row, file="rows.jsonl", line=row + 1, columns=columns)
                    for row in range(count)
                ]
            )
        )
        return self


@asynccontextmanager
async def playing(
    url: str, *, clocks: Clocks | None = None, ca_file: Path | None = None, **settings: Any
) -> AsyncIterator[WirePlay]:
    async with Wire(clocks=clocks or Clocks(), ca_file=ca_file) as wire:
        yield WirePlay(wire, url, **settings)
