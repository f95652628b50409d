"""One attempt, from a request to a completion, with everything that is done to every attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio

from batchrunner.errors import RequestError

if TYPE_CHECKING:
    from batchrunner.limits import Lane
    from batchrunner.providers.base import Provider
    from batchrunner.records import Completion, Reply, Request
    from batchrunner.transport import Line, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A lane and the prepared line that its requests go out on."""

    lane: Lane
    line: Line
    label: str
    """Names the key's source and what the lane is for, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    completion: Completion
    reply: Reply


class Call(Protocol):
    async def __call__(self, channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        """Make one attempt, over at the monotonic instant `deadline`. Raises RequestError."""


def build_stack(wire: Wire, provider: Provider, *, max_wait_s: float) -> Call:
    """Retries are no layer here: an item that waits goes back to its lane's backlog and holds nothing."""
    return limited(endpoint(wire, provider, max_wait_s=max_wait_s))


def endpoint(wire: Wire, provider: Provider, *, max_wait_s: float) -> Call:
    """Send, and read the reply. The wire keeps the clocks."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        reply = await wire.send(channel.line, request, deadline=deadline)
        return Answer(completion=provider.parse(reply, max_wait_s=max_wait_s), reply=reply)

    return call


def limited(inner: Call) -> Call:
    """Tell the lane what is in flight and how it ended: it paces, pauses and breaks by that."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        lane, started_at = channel.lane, anyio.current_time()
        lane.in_flight += 1
        try:
            answer = await inner(channel, request, item_id=item_id, deadline=deadline)
            lane.succeeded(latency_s=anyio.current_time() - started_at)
        except RequestError as error:
            lane.failed(error, item_id, started_at=started_at)
            raise
        finally:
            lane.in_flight -= 1
        return answer

    return call
