"""One attempt, from a request to a completion, with everything that is done to every attempt."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from batchrunner.errors import RequestError
from batchrunner.providers.reading.allowance import read_allowance
from batchrunner.records import fact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.limits import Lane
    from batchrunner.providers.base import Provider
    from batchrunner.records import Completion, Reply, Request
    from batchrunner.transport import Line, Wire


class Access(Protocol):
    """One credential for as long as the run lasts. All methods may be called from many tasks at once."""

    def current(self) -> Line | None:
        """The line to send on now; None where `line` has to be awaited."""

    async def line(self) -> Line:
        """The line to send on, once there is a key for it. Raises RequestError."""

    def accepted(self, line: Line) -> None:
        """A request came through on `line`."""

    async def renewed(self, refused: Line) -> bool:
        """Whether there is another key than the one that was refused. Raises RequestError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A lane, and what lets its requests in."""

    lane: Lane
    access: Access
    label: str
    """Names the key's source and what the lane is for, for messages."""


@fact(frozen=True, slots=True, kw_only=True)
class Answer:
    completion: Completion
    reply: Reply


class Call(Protocol):
    async def __call__(self, channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        """Make one attempt, over at the monotonic instant `deadline`. Raises RequestError."""


class Hears(Protocol):
    """Told of every attempt that ended by itself. Returns at once, raises nothing."""

    def answered(self, request: Request, completion: Completion, *, item_id: str, seconds: float) -> None: ...
    def failed(self, request: Request, error: RequestError, *, item_id: str, seconds: float) -> None: ...


def build_stack(
    wire: Wire,
    provider: Provider,
    *,
    max_wait_s: float,
    redact: Callable[[str], str] = str,
    hears: Hears | None = None,
) -> Call:
    """Retries are no layer here: an item that waits goes back to its lane's backlog and holds nothing."""
    call = limited(redacted(signed(endpoint(wire, provider, max_wait_s=max_wait_s)), redact))
    return call if hears is None else told(call, hears)


class Send(Protocol):
    async def __call__(self, line: Line, request: Request, *, deadline: float) -> Answer:
        """Make one attempt with the key on `line`. Raises RequestError."""


def endpoint(wire: Wire, provider: Provider, *, max_wait_s: float) -> Send:
    """Send, and read the reply. The wire keeps the clocks."""

    async def send(line: Line, request: Request, *, deadline: float) -> Answer:
        reply = await wire.send(line, request, deadline=deadline)
        try:
            return Answer(completion=provider.parse(reply, max_wait_s=max_wait_s), reply=reply)
        except RequestError as error:
            error.headers = reply.headers
            raise

    return send


def signed(send: Send) -> Call:
    """Send with today's key. Where that is refused and there is another one, the item is worth another attempt."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        access = channel.access
        line = access.current() or await access.line()
        try:
            answer = await send(line, request, deadline=deadline)
        except RequestError as error:
            if error.error_type == "auth" and error.verdict == "abort" and await access.renewed(line):
                raise RequestError(
                    str(error), verdict="retry", error_type="auth", wait_s=0.0, status=error.status
                ) from error
            raise
        access.accepted(line)
        return answer

    return call


def redacted(inner: Call, redact: Callable[[str], str]) -> Call:
    """Take what `redact` knows out of every error, before a lane, a log or an outcome hears of it."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        try:
            return await inner(channel, request, item_id=item_id, deadline=deadline)
        except RequestError as error:
            error.args = (redact(str(error)),)
            raise

    return call


def limited(inner: Call) -> Call:
    """Tell the lane what is in flight and how it ended: it paces, pauses and breaks by that."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        lane, started_at = channel.lane, monotonic()
        lane.in_flight += 1
        try:
            answer = await inner(channel, request, item_id=item_id, deadline=deadline)
            lane.succeeded(latency_s=monotonic() - started_at)
            _tell_limits(lane, answer.reply.headers, started_at)
        except RequestError as error:
            if error.headers is not None:
                _tell_limits(lane, error.headers, started_at, refused=True)
            lane.failed(error, item_id, started_at=started_at)
            raise
        finally:
            lane.in_flight -= 1
        return answer

    return call


def told(inner: Call, hears: Hears) -> Call:
    """Tell how each attempt went."""

    async def call(channel: Channel, request: Request, *, item_id: str, deadline: float) -> Answer:
        began_at = monotonic()
        try:
            answer = await inner(channel, request, item_id=item_id, deadline=deadline)
        except RequestError as error:
            hears.failed(request, error, item_id=item_id, seconds=monotonic() - began_at)
            raise
        hears.answered(request, answer.completion, item_id=item_id, seconds=monotonic() - began_at)
        return answer

    return call


def _tell_limits(lane: Lane, headers: Mapping[str, str], started_at: float, *, refused: bool = False) -> None:
    """A refusal teaches by itself, and may come from a proxy with limits of its own: only its wait is taken over."""
    told = read_allowance(headers)
    if told is not None:
        requests, tokens = (None, None) if refused else (told.requests, told.tokens)
        sent_at = None if told.by_clock else started_at
        lane.announced(requests=requests, tokens=tokens, hold_s=told.hold_s, sent_at=sent_at)
