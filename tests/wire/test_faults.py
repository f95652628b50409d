"""Every fault of a network, in a JSON reply and in a stream, once and always: trips, outcome and what may be billed.

A runner with the real wire and real sockets; only the clocks are short.
"""

from __future__ import annotations

import gzip
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from driving import batchrunner, write_rows
from faulty_server import body_of, completion, plain, serve_in_thread, streamed
from wire_play import playing

from batchrunner.transport import Clocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from driving import Ended
    from faulty_server import FaultyServer, Seen

    from batchrunner.records import Outcome

    Reply = dict[str, Any]

FORMS: dict[str, Mapping[str, Any]] = {"json": plain("hi, there"), "sse": streamed("hi, there")}
ATTEMPTS, UNREADABLE = 4, 3
"""`retry.attempts` here; how often a 200 that was cut or cannot be read goes out."""
CLOCK_S, ATTEMPT_S = 0.3, 0.5
SHORT = Clocks(first_byte_s=CLOCK_S, idle_s=CLOCK_S, attempt_s=ATTEMPT_S)
LONG = Clocks(first_byte_s=20, idle_s=20, attempt_s=20, error_body_s=CLOCK_S)
WAIT_S, LATE_S = 0.1, 8.0
"""Between two attempts here; what a busy machine may add to a whole run."""
HALF_A_HEAD = "HTTP/1.1 200 OK\r\nContent-Ty"


def half(form: str, **more: Any) -> Reply:
    """The good reply of that form, half of it, and what happens then."""
    whole = body_of(FORMS[form])
    return {"status": 200, "headers": FORMS[form]["headers"], "body": whole[: len(whole) // 2], **more}


def empty(form: str, **more: Any) -> Reply:
    return half(form, **{"body": "", **more})


def raw(text: str | bytes, **more: Any) -> Callable[[str], Reply]:
    return lambda form: {"end": "raw", "raw": text, **more}


def chunked(form: str) -> str:
    """The head and the first chunk of a reply."""
    kind, first = FORMS[form]["headers"]["Content-Type"], body_of(FORMS[form])[:20].decode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{first}\r\n"


def noise(form: str) -> str:
    return ": keep-alive\n\n" if form == "sse" else "\n"


def talk(form: str) -> str:
    return 'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' if form == "sse" else "x"


def packed(form: str, *, keep: int | None = None) -> Reply:
    """The good reply as gzip, its first `keep` bytes."""
    data = gzip.compress(body_of(FORMS[form]), mtime=0)[:keep]
    return {"status": 200, "headers": {**FORMS[form]["headers"], "Content-Encoding": "gzip"}, "body": data}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a server does to a request, and what that comes to."""

    reply: Callable[[str], Reply]
    error_type: str
    goes_out: int = ATTEMPTS
    """How often an item goes out that never meets anything else."""
    billed: bool = True
    """Whether each trip may have been billed: it went out whole, and no status says that it was refused."""
    clock_s: float = 0.0
    """The clock that ends each trip."""


def before(reply: Callable[[str], Reply], **facts: Any) -> Fault:
    """Nothing of a reply has come."""
    return Fault(reply=reply, error_type="connection", **facts)


def broken(reply: Callable[[str], Reply], error_type: str = "truncated", **facts: Any) -> Fault:
    """A 200 that was cut or cannot be read: each one may have been billed, so it goes out three times at most."""
    return Fault(reply=reply, error_type=error_type, **{"goes_out": UNREADABLE, **facts})


def slow(reply: Callable[[str], Reply], clock_s: float = CLOCK_S) -> Fault:
    return Fault(reply=reply, error_type="timeout", clock_s=clock_s)


def refused(reply: Callable[[str], Reply]) -> Fault:
    """The status says it all, however its body ends."""
    return Fault(reply=reply, error_type="server", billed=False, clock_s=CLOCK_S)


TROUBLE = {"status": 500, "body": '{"error": {"message": "sorr'}
FAULTS = {
    "reset before the head": before(raw("", rst=True)),
    "reset in the head": before(raw(HALF_A_HEAD, rst=True)),
    "closed before the head": before(lambda form: {"end": "no_reply"}),
    "closed in the head": before(raw(HALF_A_HEAD)),
    "another protocol": before(raw("SSH-2.0-OpenSSH_9.6\r\n\r\n")),
    "binary garbage": before(raw(bytes(range(256)) * 8)),
    "a head that is none": before(raw("HTTP/1.1 200 OK\r\nbad header\r\n\r\n")),
    "a length that is none": before(raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi")),
    "a head without end": before(raw("HTTP/1.1 200 OK\r\n", again="X-Filler: " + "y" * 4_000 + "\r\n", pause_ms=1)),
    "a header without end": before(raw("HTTP/1.1 200 OK\r\nX-Filler: ", again="y" * 4_000, pause_ms=1)),
    "a head of 80 KiB": before(raw("HTTP/1.1 200 OK\r\n" + "X-Filler: {}\r\n".format("y" * 8_000) * 10 + "\r\n")),
    "reset behind the head": broken(lambda form: empty(form, end="rst"), "connection"),
    "reset in the body": broken(lambda form: half(form, end="rst"), "connection"),
    "reset in a body without a length": broken(lambda form: half(form, end="rst", framing="close"), "connection"),
    "closed behind the head": broken(lambda form: empty(form, end="cut", framing="length")),
    "closed in the body": broken(lambda form: half(form, end="cut", framing="length")),
    "closed between chunks": broken(lambda form: half(form, end="cut", framing="chunked", chunk_bytes=20)),
    "closed in a body without a length": broken(lambda form: half(form, end="close")),
    "garbage between chunks": broken(lambda form: raw(chunked(form), again="zz\r\n", pause_ms=50)(form)),
    "half a gzip": broken(lambda form: packed(form, keep=40)),
    "no gzip": broken(lambda form: {**packed(form), "body": body_of(FORMS[form])}, "malformed"),
    "a page": broken(lambda form: empty(form, body="<html>Sign in</html>"), "malformed"),
    "nothing in it": broken(empty, "empty", goes_out=ATTEMPTS),
    "silence before the head": slow(raw("", keep=True)),
    "silence in the head": slow(raw(HALF_A_HEAD, keep=True)),
    "silence behind the head": slow(lambda form: empty(form, end="hang")),
    "silence in the body": slow(lambda form: half(form, end="hang")),
    "interim replies for ever": slow(raw("", again="HTTP/1.1 102 Processing\r\n\r\n", pause_ms=10)),
    "no content for ever": slow(lambda form: empty(form, end="drip_forever", again=noise(form), pause_ms=10)),
    "content, then none for ever": slow(lambda form: half(form, end="drip_forever", again=noise(form), pause_ms=10)),
    "content for ever": slow(lambda form: empty(form, end="drip_forever", again=talk(form), pause_ms=10), ATTEMPT_S),
    "an error, then silence": refused(lambda form: {**TROUBLE, "end": "hang"}),
    "an error that drips": refused(lambda form: {**TROUBLE, "end": "drip_forever", "again": "y", "pause_ms": 10}),
}

every_fault = pytest.mark.parametrize("name", FAULTS)
in_both_forms = pytest.mark.parametrize("form", FORMS)


async def outcome_of(server: FaultyServer, form: str, fault: Fault) -> Outcome:
    """What becomes of one item; never later than its clocks have it."""
    clocks = SHORT if fault.error_type == "timeout" else LONG
    began = time.monotonic()
    async with playing(server.url, clocks=clocks, attempts=ATTEMPTS) as play:
        await play.run(1, stream=form == "sse")
    [outcome] = play.outcomes
    assert time.monotonic() - began < outcome.attempts * (fault.clock_s + 2 * WAIT_S) + LATE_S
    assert await server.quiet()
    return outcome


@pytest.mark.anyio
@every_fault
@in_both_forms
async def test_a_fault_that_is_met_once_costs_one_more_trip(server: FaultyServer, form: str, name: str) -> None:
    fault = FAULTS[name]
    server.replies.append(fault.reply(form))

    outcome = await outcome_of(server, form, fault)

    assert (outcome.status, outcome.text, outcome.error_type) == ("succeeded", "echo: hi", None)
    assert (len(server.seen), outcome.attempts, outcome.possibly_billed) == (2, 2, fault.billed)


@pytest.mark.anyio
@every_fault
@in_both_forms
async def test_a_fault_that_never_ends_exhausts_the_item(server: FaultyServer, form: str, name: str) -> None:
    fault = FAULTS[name]
    server.default = fault.reply(form)

    outcome = await outcome_of(server, form, fault)

    assert (outcome.status, outcome.error_type) == ("exhausted", fault.error_type), outcome.error
    assert (len(server.seen), outcome.attempts) == (fault.goes_out, fault.goes_out)
    assert outcome.possibly_billed == fault.billed * fault.goes_out
    assert outcome.text is None


def run_over_all(tmp_path: Path, *, for_ever: bool) -> tuple[FaultyServer, Ended]:
    """A whole run of one good item, and one for each fault in each form on a lane of its own; two trips at most."""
    asked = [(name, form) for name in FAULTS for form in FORMS]
    rows = [{"id": f"{name}, {form}", "model": f"{name}, {form}", "stream": form == "sse"} for name, form in asked]
    rows = [{"prompt": "hi", **row} for row in [{"id": "good", "model": "good"}, *rows]]
    met: Counter[str] = Counter()

    def answer(seen: Seen) -> Reply:
        model = seen.json()["model"]
        met[model] += 1
        if model == "good" or (met[model] > 1 and not for_ever):
            return dict(completion(seen))
        name, form = model.rsplit(", ", 1)
        return FAULTS[name].reply(form)

    told = {"timeouts.first_byte_s": 1.5, "timeouts.idle_s": 1.5, "timeouts.attempt_s": 3, "retry.attempts": 2}
    settings = {**told, "limits.per": "model"}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with serve_in_thread() as server:
        server.default = answer
        path = write_rows(tmp_path / "rows.jsonl", rows)
        ended = batchrunner("run", path, "--provider", "openai", "--base-url", server.url, "--json", *words)
    return server, ended


@pytest.mark.slow
def test_a_run_that_meets_each_fault_once_finishes(tmp_path: Path) -> None:
    server, ended = run_over_all(tmp_path, for_ever=False)

    count, billed = 2 * len(FAULTS), 2 * sum(fault.billed for fault in FAULTS.values())
    assert (ended.code, ended.summary["items"]["succeeded"]) == (0, count + 1), ended.err
    assert len(server.seen) == ended.summary["now"]["sent"] == 2 * count + 1
    assert ended.summary["possibly_billed"] == billed


def test_a_run_that_meets_nothing_but_faults_ends_and_can_be_run_again(tmp_path: Path) -> None:
    server, ended = run_over_all(tmp_path, for_ever=True)

    count, billed = 2 * len(FAULTS), 2 * sum(fault.billed for fault in FAULTS.values())
    types = Counter(fault.error_type for fault in FAULTS.values() for _ in FORMS)
    assert (ended.code, ended.summary["items"]["exhausted"]) == (4, count), ended.err
    assert (ended.summary["items"]["succeeded"], ended.summary["retryable"]) == (1, True)
    assert {kind: facts["count"] for kind, facts in ended.summary["failed_by_type"].items()} == types
    assert len(server.seen) == 2 * count + 1
    assert ended.summary["possibly_billed"] == 2 * billed
