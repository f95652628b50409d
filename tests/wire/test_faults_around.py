"""Faults around the reply: before there is a connection, in the handshake, and on connections that are kept."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from faulty_server import FaultyServer, body_of, head_of, plain, streamed
from wire_play import WirePlay, playing

from batchrunner.errors import ProviderRefused
from batchrunner.transport import Clocks, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchrunner.records import Outcome

pytestmark = pytest.mark.anyio

FORMS = {"json": plain("hi, there"), "sse": streamed("hi, there")}
ATTEMPTS, CLOCK_S, LATE_S = 3, 0.3, 8.0

in_both_forms = pytest.mark.parametrize("form", FORMS)


def whole(form: str, text: str = "hi, there") -> str:
    """A good reply, word for word."""
    reply = streamed(text) if form == "sse" else plain(text)
    body = body_of(reply)
    return (head_of(reply, framing="length", size=len(body)) + body).decode("latin-1")


async def outcomes(url: str, form: str, *, count: int = 1, prompt: str = "hi", **settings: Any) -> list[Outcome]:
    async with playing(url, attempts=ATTEMPTS, **settings) as play:
        await play.run(count, stream=form == "sse", prompt=prompt)
    return play.outcomes


# Interim replies


@in_both_forms
async def test_interim_replies_are_passed_over(server: FaultyServer, form: str) -> None:
    interim = "".join(f"HTTP/1.1 {status} Interim\r\nRetry-After: 9\r\n\r\n" for status in (100, 102, 103, 103, 199))
    server.default = {"end": "raw", "raw": interim + whole(form)}

    [outcome] = await outcomes(server.url, form)

    assert (outcome.status, outcome.text, outcome.attempts) == ("succeeded", "hi, there", 1)


@in_both_forms
async def test_a_switch_of_protocols_is_no_answer(server: FaultyServer, form: str) -> None:
    upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    server.default = {"end": "raw", "raw": upgrade + whole(form), "keep": True}

    [outcome] = await outcomes(server.url, form, clocks=Clocks(first_byte_s=CLOCK_S, idle_s=CLOCK_S))

    assert (outcome.status, outcome.error_type, outcome.text) == ("exhausted", "provider_error", None)
    assert len(server.seen) == ATTEMPTS


# Redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@in_both_forms
async def test_a_redirect_ends_the_run_and_its_target_sees_nothing(
    server: FaultyServer, form: str, status: int
) -> None:
    async with FaultyServer() as other:
        away = {"Location": f"{other.url}/steal", "Refresh": f"0; url={other.url}", "Alt-Svc": f'h2=":{other.port}"'}
        server.default = {**FORMS[form], "status": status, "headers": {**FORMS[form]["headers"], **away}}
        async with playing(server.url, concurrency=8) as play:
            await play.run(20, stream=form == "sse")

        assert other.connections == 0
    assert isinstance(play.brakes.cause, ProviderRefused)
    assert play.outcomes == []
    assert len(server.seen) <= 3


# Before there is a connection


@in_both_forms
async def test_a_port_that_opens_again_costs_one_more_trip(server: FaultyServer, form: str) -> None:
    server.replies.append({"end": "refused", "pause_ms": 3_600_000})

    def open_again(low: float, high: float) -> float:
        server._listen_again()
        return low

    [outcome] = await outcomes(server.url, form, uniform=open_again)

    assert (outcome.status, outcome.attempts, outcome.possibly_billed) == ("succeeded", 2, 0)
    assert len(server.seen) == 1


@in_both_forms
async def test_a_closed_port_exhausts_the_item_and_costs_nothing(server: FaultyServer, form: str) -> None:
    server.replies.append({"end": "refused", "pause_ms": 3_600_000})

    [outcome] = await outcomes(server.url, form)

    assert (outcome.status, outcome.error_type) == ("exhausted", "connection")
    assert (outcome.attempts, outcome.possibly_billed, server.connections) == (ATTEMPTS, 0, 0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that takes two connections, reads from none, and lets others wait."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("prompt", "billed"), [("hi", 2), ("x" * 32_000_000, 0)], ids=["went out", "did not go out whole"]
)
async def test_a_request_that_nobody_reads_is_billed_only_if_it_went_out(deaf: str, prompt: str, billed: int) -> None:
    began = time.monotonic()

    async with playing(deaf, attempts=2, clocks=Clocks(first_byte_s=CLOCK_S)) as play:
        await play.run(1, prompt=prompt)

    [outcome] = play.outcomes
    assert (outcome.status, outcome.error_type, outcome.attempts) == ("exhausted", "timeout", 2)
    assert outcome.possibly_billed == billed
    assert time.monotonic() - began < 2 * CLOCK_S + LATE_S


async def test_a_connection_that_nobody_takes_is_given_up_and_costs_nothing(deaf: str) -> None:
    port = int(deaf.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        [outcome] = await outcomes(deaf, "json", clocks=Clocks(connect_s=CLOCK_S))

    assert (outcome.status, outcome.error_type) == ("exhausted", "timeout")
    assert (outcome.attempts, outcome.possibly_billed) == (ATTEMPTS, 0)
    assert "timeouts.connect_s" in (outcome.error or "")


# In the handshake


HANDSHAKES = {"close": "connection", "rst": "connection", "garbage": "connection", "hang": "timeout"}


@pytest.mark.parametrize("how", HANDSHAKES)
@in_both_forms
async def test_a_handshake_that_fails_once_costs_one_more_trip(
    secure: FaultyServer, certificate: Path, form: str, how: str
) -> None:
    secure.at_connect.append(how)

    [outcome] = await outcomes(secure.url, form, ca_file=certificate, clocks=Clocks(connect_s=2 * CLOCK_S))

    assert (outcome.status, outcome.attempts, outcome.possibly_billed) == ("succeeded", 2, 0)
    assert len(secure.seen) == 1


@pytest.mark.parametrize("how", HANDSHAKES)
async def test_a_handshake_that_always_fails_exhausts_the_item_and_costs_nothing(
    secure: FaultyServer, certificate: Path, how: str
) -> None:
    secure.at_connect.extend([how] * 2 * ATTEMPTS)

    [outcome] = await outcomes(secure.url, "json", ca_file=certificate, clocks=Clocks(connect_s=CLOCK_S))

    assert (outcome.status, outcome.error_type) == ("exhausted", HANDSHAKES[how])
    assert (outcome.attempts, outcome.possibly_billed, secure.seen) == (ATTEMPTS, 0, [])
    assert secure.connections == ATTEMPTS


async def test_a_certificate_nobody_vouches_for_ends_the_run_and_no_item(secure: FaultyServer) -> None:
    async with playing(secure.url, concurrency=8) as play:
        await play.run(50)

    assert isinstance(play.brakes.cause, ProviderRefused)
    assert (play.outcomes, secure.seen) == ([], [])
    assert secure.connections <= 3


@pytest.mark.parametrize(("end", "error_type"), [("cut", "truncated"), ("rst", "connection")])
@in_both_forms
async def test_a_body_that_breaks_off_over_tls_is_tried_again_twice(
    secure: FaultyServer, certificate: Path, form: str, end: str, error_type: str
) -> None:
    body = body_of(FORMS[form])
    secure.default = {"headers": FORMS[form]["headers"], "body": body[: len(body) // 2], "end": end}

    async with playing(secure.url, ca_file=certificate, attempts=5) as play:
        await play.run(1, stream=form == "sse")

    [outcome] = play.outcomes
    assert (outcome.status, outcome.error_type) == ("exhausted", error_type)
    assert (len(secure.seen), outcome.attempts, outcome.possibly_billed) == (3, 3, 3)


# On connections that are kept


@pytest.mark.parametrize(
    "reply", [{"end": "no_reply"}, {"end": "raw", "raw": "", "rst": True}], ids=["closed", "reset"]
)
@in_both_forms
async def test_a_kept_connection_that_ends_under_a_request_costs_no_wait(
    server: FaultyServer, form: str, reply: dict[str, Any]
) -> None:
    server.replies.extend([FORMS[form], reply, FORMS[form]])

    first, second = await outcomes(server.url, form, count=2, uniform=max)

    assert (first.attempts, second.attempts, second.status, second.possibly_billed) == (1, 2, "succeeded", 1)
    assert [seen.connection for seen in server.seen] == [1, 1, 2]
    assert server.seen[2].at - server.seen[1].at < 0.5


@pytest.mark.parametrize(
    "late",
    [
        {},
        {"rst": True},
        {"again": whole("json", "of somebody else"), "pause_ms": 50},
        {"again": "\r\nSSH", "pause_ms": 50},
    ],
    ids=["closed", "reset", "another reply", "garbage"],
)
@in_both_forms
async def test_what_becomes_of_a_connection_while_it_is_idle_is_nobodys_answer(
    server: FaultyServer, form: str, late: dict[str, Any]
) -> None:
    server.replies.append({"end": "raw", "raw": whole(form), **late})

    async with Wire(clocks=Clocks()) as wire:
        first = await WirePlay(wire, server.url).run(1, stream=form == "sse")
        await anyio.sleep(0.2)
        second = await WirePlay(wire, server.url).run(1, stream=form == "sse")

    found = [*first.outcomes, *second.outcomes]
    assert [(outcome.text, outcome.attempts) for outcome in found] == [("hi, there", 1), ("echo: hi", 1)]
    assert [seen.connection for seen in server.seen] == [1, 2]


@in_both_forms
async def test_what_follows_a_reply_at_once_is_nobodys_answer(server: FaultyServer, form: str) -> None:
    server.replies.append({"end": "raw", "raw": whole(form) + whole(form, "of somebody else"), "keep": True})

    found = await outcomes(server.url, form, count=2)

    assert [outcome.text for outcome in found] == ["hi, there", "echo: hi"]
    assert [seen.connection for seen in server.seen] == [1, 2]
