"""What the cost of the product is compared with, each a program: loops.py NAME URL REQUESTS IN_FLIGHT.

`bare` is the least that can be done with aiohttp: workers that post prepared bodies and decode the answers, and keep
nothing. `bare-uvloop` is the same on uvloop. `openai` and `litellm` are the loops that people write with those
packages, with a semaphore. `in-memory` is the product itself, but for its store: outcomes are held in memory, and
written as one Parquet file at the end. What is missing from its cost is the cost of losing nothing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson


def _prompt(number: int) -> str:
    return f"Classify ticket {number}: I was charged twice for one order and want my money back."


def _messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": _prompt(number)}]


async def bare(url: str, requests: int, in_flight: int) -> None:
    import aiohttp

    bodies = iter([orjson.dumps({"model": "bench-1", "messages": _messages(number)}) for number in range(requests)])
    headers = {"content-type": "application/json", "authorization": "Bearer none"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for body in bodies:
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                    orjson.loads(await response.read())

        await asyncio.gather(*(work() for _ in range(in_flight)))


async def openai(url: str, requests: int, in_flight: int) -> None:
    from httpx import Limits
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    limits = Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    client = AsyncOpenAI(base_url=url, api_key="none", http_client=DefaultAsyncHttpxClient(limits=limits))
    slots = asyncio.Semaphore(in_flight)

    async def ask(number: int) -> str | None:
        async with slots:
            answer = await client.chat.completions.create(model="bench-1", messages=_messages(number))  # type: ignore[arg-type]
            return answer.choices[0].message.content

    await asyncio.gather(*map(ask, range(requests)))


async def litellm(url: str, requests: int, in_flight: int) -> None:
    import litellm as package

    slots = asyncio.Semaphore(in_flight)

    async def ask(number: int) -> Any:
        async with slots:
            return await package.acompletion(
                model="openai/bench-1", messages=_messages(number), api_base=url, api_key="none"
            )

    await asyncio.gather(*map(ask, range(requests)))


def in_memory(arguments: list[str]) -> None:
    """The product without journal, parts and commits. `arguments` are those of its command line."""
    from batchrunner.assemble import execute
    from batchrunner.cli import main
    from batchrunner.store import parts

    held = []

    class Holding(execute.Writer):
        async def record(self, outcome: Any) -> None:
            held.append(parts.encode(outcome))

        async def __aexit__(self, *how: Any) -> None:
            table = parts.to_table(held, after=0, epoch=1)
            with tempfile.TemporaryDirectory() as folder:
                parts.write_table(Path(folder) / "results.parquet", table.sort_by("row"), 0o600)
            await super().__aexit__(*how)

    execute.Writer = Holding  # type: ignore[misc]
    sys.argv = ["batchrunner", *arguments]
    with suppress(SystemExit):  # It ends with items that have no outcome.
        main()


def _run() -> None:
    name, *rest = sys.argv[1:]
    if name == "in-memory":
        in_memory(rest)
        return
    url, requests, in_flight = rest[0], int(rest[1]), int(rest[2])
    if name == "bare-uvloop":
        import uvloop

        uvloop.run(bare(url, requests, in_flight))
    else:
        asyncio.run({"bare": bare, "openai": openai, "litellm": litellm}[name](url, requests, in_flight))


if __name__ == "__main__":
    _run()
