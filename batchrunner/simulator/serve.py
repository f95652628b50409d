"""The server: reads requests, lets `traffic` decide, and writes, cuts or withholds the replies."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from aiohttp import web

from batchrunner.errors import JobError
from batchrunner.simulator.access_log import logging_to
from batchrunner.simulator.traffic import Call, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from batchrunner.simulator.plans import Plan
    from batchrunner.simulator.settings import Settings
    from batchrunner.simulator.traffic import Counts

BODY_BYTES = 64 * 2**20
"""Larger requests are refused with 413."""
BACKLOG = 4096
SLICES = 8
"""A stream that takes its time arrives in this many writes."""
FIRST_SHARE = 0.4
"""Share of a stream's latency that passes before its first byte."""
GRACE_S = 0.05
"""How long requests in flight may still take when the server stops; then they are given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """A running simulator."""

    url: str
    """`http://HOST:PORT`, no slash at the end."""
    counts: Counts


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Simulator]:
    """A simulator for as long as the block lasts.

    Raises JobError when the port or the log cannot be opened, StoreError when the log could not be
    written. Requests still in flight at the end are cut off.
    """
    async with logging_to(settings.log) as log:
        traffic = Traffic(settings, log)
        server = web.Server(
            _handler(traffic, settings),
            request_factory=_request,
            # A client that goes away must not leave a stalled request behind.
            handler_cancellation=True,
            access_log=None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=GRACE_S)
        await runner.setup()
        try:
            yield Simulator(url=await _listen(runner, settings), counts=traffic.counts)
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()


async def _listen(runner: web.ServerRunner, settings: Settings) -> str:
    place = f"{settings.host}:{settings.port}"
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise JobError(f"simulator: cannot listen on {place!r}: {reason}; port 0 takes any free one") from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{runner.addresses[0][1]}"


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, task.get_loop(), client_max_size=BODY_BYTES)


def _handler(traffic: Traffic, settings: Settings) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/health":
            return web.json_response({"status": "ok"})
        plan = traffic.plan(await _read(request))
        try:
            await _wait(plan.latency_s * (FIRST_SHARE if plan.streamed else 1.0))
        finally:
            # Before the first byte goes out, since the client books what it reads; also when it has gone.
            plan.settle()
        if plan.fault == "stall":
            return await _stall(request, plan, settings.stall_s)
        if plan.fault == "cut":
            return await _cut(request, plan)
        if plan.streamed:
            return await _stream(request, plan)
        return web.Response(status=plan.status, headers=plan.headers, body=plan.blocks[0])

    return handle


async def _read(request: web.BaseRequest) -> Call:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        body = None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Call(method=request.method, path=request.raw_path, headers=headers, body=body)


async def _wait(seconds: float) -> None:
    if seconds:
        await anyio.sleep(seconds)


async def _stream(request: web.BaseRequest, plan: Plan) -> web.StreamResponse:
    reply = await _opened(request, plan)
    size = -(-len(plan.blocks) // SLICES) if plan.latency_s else len(plan.blocks)
    for start in range(0, len(plan.blocks), size):
        await _wait(plan.latency_s * (1 - FIRST_SHARE) / SLICES)
        await reply.write(b"".join(plan.blocks[start : start + size]))
    return reply


async def _cut(request: web.BaseRequest, plan: Plan) -> web.StreamResponse:
    """Half of what was announced, then the end of the connection."""
    body = b"".join(plan.blocks)
    reply = await _opened(request, plan)
    await reply.write(body[: len(body) // 2])
    _hang_up(request)
    return reply


async def _stall(request: web.BaseRequest, plan: Plan, seconds: float) -> web.StreamResponse:
    """Headers, then silence until the client goes or loses."""
    reply = await _opened(request, plan)
    await anyio.sleep(seconds)
    _hang_up(request)
    return reply


async def _opened(request: web.BaseRequest, plan: Plan) -> web.StreamResponse:
    reply = web.StreamResponse(status=plan.status, headers=plan.headers)
    if not plan.streamed:
        reply.content_length = len(plan.blocks[0])
    await reply.prepare(request)
    return reply


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()
