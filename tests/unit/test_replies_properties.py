"""Any stream cut anywhere, any bytes at all, from the first byte off the wire to the row of a part."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import providers
from batchrunner.errors import RequestError
from batchrunner.records import Completion, Outcome, Reply
from batchrunner.schema import PART
from batchrunner.store import parts
from batchrunner.transport.body import Body
from batchrunner.transport.inflate import Unreadable

PROVIDERS = {kind: providers.load(kind) for kind in providers.available()}
KEY, PROMPT = "sk-canary-0123456789", "a prompt that nobody else may read"
TEXT = st.text(st.characters(codec=None), max_size=6)


def received(raw: bytes, *, status: int = 200, headers: dict[str, str], cut: str | None, step: int) -> Reply | None:
    """The reply as the transport hands it over; None where it refuses the body itself."""
    told = {name.lower(): value for name, value in headers.items()}
    body = Body(
        encoding=told.get("content-encoding", ""), content_type=told.get("content-type", ""), max_bytes=1_000_000
    )
    try:
        for start in range(0, len(raw), step):
            body.feed(raw[start : start + step])
        cut = body.end(cut=cut)
    except Unreadable:
        return None
    events = body.events
    plain = b"" if events is not None else body.content
    return Reply(status=status, headers=told, body=plain, events=events, done=body.done, cut=cut)


def read(reply: Reply, kind: str = "openai") -> Completion | RequestError:
    try:
        return PROVIDERS[kind].parse(reply)
    except RequestError as error:
        return error


# A valid stream


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A stream of one or two choices with all that may come in one, and whether it ends with [DONE]."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    deltas: list[tuple[int, dict[str, Any], str | None]] = []
    choices = draw(st.integers(1, 2))
    for index in range(choices):
        deltas.append((index, {"role": "assistant"}, None))
        deltas += [(index, {"content": text}, None) for text in draw(st.lists(TEXT, min_size=1, max_size=4))]
        deltas += [(index, {"reasoning_content": text}, None) for text in draw(st.lists(TEXT, max_size=2))]
        for number in range(draw(st.integers(0, 2))):
            head = {"index": number, "id": f"c{number}", "function": {"name": f"f{number}", "arguments": ""}}
            deltas.append((index, {"tool_calls": [head]}, None))
            deltas += [
                (index, {"tool_calls": [{"index": number, "function": {"arguments": text}}]}, None)
                for text in draw(st.lists(TEXT, max_size=2))
            ]
    # Choices come interleaved, each in its own order; each ends with its finish_reason.
    order = draw(st.permutations(range(len(deltas)))) if choices > 1 else list(range(len(deltas)))
    mine = {index: iter([each for each in deltas if each[0] == index]) for index in range(choices)}
    chunks = [next(mine[deltas[place][0]]) for place in order]
    chunks += [(index, {}, draw(st.sampled_from(["stop", "length", "tool_calls"]))) for index in range(choices)]
    told = [
        json.dumps(
            {"id": "c", "model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]},
            ensure_ascii=draw(st.booleans()),
        )
        for index, delta, reason in chunks
    ]
    if draw(st.booleans()):
        told.append(json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}))
    ends_with_done = draw(st.booleans())
    told += ["[DONE]"] if ends_with_done else []
    noise = draw(st.sampled_from(["", f": keep-alive{end}{end}", f"event: message{end}"]))
    return "".join(f"{noise}data: {text}{end}{end}" for text in told).encode("utf-8", "replace"), ends_with_done


CUTS = st.sampled_from([None, "closed early", "reset", "a clock ran out"])


def same(part: Completion, whole: Completion) -> bool:
    """Everything but the usage, which may come behind the last finish_reason."""
    names = ("text", "reasoning", "tool_calls", "choices", "finish_reason")
    return all(getattr(part, name) == getattr(whole, name) for name in names)


def check_a_cut(stream: tuple[bytes, bool], cut: str | None, place: int, step: int) -> None:
    raw, _ = stream
    headers = {"Content-Type": "text/event-stream"}
    whole = read(received(raw, headers=headers, cut=None, step=step))  # type: ignore[arg-type]
    assert isinstance(whole, Completion)

    reply = received(raw[: place % (len(raw) + 1)], headers=headers, cut=cut, step=step)

    assert reply is not None
    part = read(reply)
    if isinstance(part, RequestError):
        assert (part.verdict, part.went_out) == ("retry", True)
        assert part.error_type in {"truncated", "malformed", "empty"}
    else:
        assert same(part, whole)


@settings(max_examples=90, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stream=streams(), cut=CUTS, place=st.integers(0, 10**6), step=st.integers(1, 400))
def test_a_stream_cut_anywhere_is_the_whole_answer_or_worth_another_attempt(stream, cut, place, step):
    check_a_cut(stream, cut, place, step)


@pytest.mark.slow
@settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stream=streams(), cut=CUTS, place=st.integers(0, 10**6), step=st.integers(1, 400))
def test_many_streams_cut_anywhere(stream, cut, place, step):
    check_a_cut(stream, cut, place, step)


# Any bytes at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([KEY, PROMPT, "stop", 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "model", "choices", "usage", "error", "detail", "message", "object", "code", "x_groq", "session_id")
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "refusal", "reasoning", "tool_calls", "function_call"]), JSON, max_size=4
)
CHOICE = st.fixed_dictionaries(
    {}, optional={"index": JSON, "message": MESSAGE | JSON, "delta": MESSAGE | JSON, "finish_reason": JSON}
)
REPLY = st.fixed_dictionaries(
    {}, optional={name: st.lists(CHOICE, max_size=3) | JSON if name == "choices" else JSON for name in FIELDS}
)
ECHO = st.fixed_dictionaries({"msg": st.sampled_from(["Field required", "odd"]), "input": st.just(PROMPT)})
ECHOED = json.dumps({"input": PROMPT})[1:-1].encode()
FAULTS = st.lists(ECHO, min_size=1, max_size=3)
DETAIL = st.one_of(
    FAULTS.map(lambda told: {"detail": told}),
    FAULTS.map(lambda told: {"error": {"message": told}}),
    FAULTS.map(lambda told: {"error": {"message": {"detail": told}}}),
    ECHO.map(lambda told: {"detail": told}),
    ECHO.map(lambda told: {"message": "no", "errors": {"messages": [told]}}),
)


def written(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


BYTES = st.one_of(
    st.binary(max_size=200),
    REPLY.map(written),
    st.tuples(DETAIL.map(written), st.integers(0, 60)).map(lambda pair: pair[0][: len(pair[0]) - pair[1]]),
    st.lists(REPLY, max_size=4).map(lambda found: b"".join(b"data: " + written(one) + b"\n\n" for one in found)),
    REPLY.map(lambda one: gzip.compress(written(one), mtime=0)),
    st.tuples(REPLY, st.integers(1, 60)).map(lambda pair: gzip.compress(written(pair[0]), mtime=0)[: -pair[1]]),
    REPLY.map(lambda one: zlib.compress(written(one))),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["application/json", "text/event-stream; charset=utf-8", "text/html", "", "x"]),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "odd", ""]),
        "Retry-After": TEXT | st.sampled_from(["5", "nan", "1e9", "-1", "Fri, 20 Nov 2026 18:00:20 GMT"]),
        "x-should-retry": st.sampled_from(["true", "false", "?"]),
    },
)


def storable(found: Completion | RequestError) -> None:
    """Through the journal's encoding into the table of a part, where all of it can be read back."""
    outcome = Outcome(item_id="i", row=0, input_file="f", input_line=1, status="succeeded", attempts=1)
    if isinstance(found, RequestError):
        assert 0 < len(str(found)) <= 2_000
        assert found.wait_s is None or 0 <= found.wait_s < float("inf")
        changes: dict[str, Any] = {
            "error": str(found), "error_type": found.error_type, "failed_prompt_tokens": found.prompt_tokens,
            "failed_completion_tokens": found.completion_tokens,
        }  # fmt: skip
    else:
        names = ("text", "reasoning", "refusal", "finish_reason", "tool_calls", "choices", "model", "response_id")
        changes = {name: getattr(found, name) for name in (*names, "session_id", "response")}
        changes |= {name: getattr(found.usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    kept = {name: getattr(outcome, name) for name in ("item_id", "row", "input_file", "input_line", "status")}
    table = parts.to_table([parts.encode(Outcome(**kept, **changes))], after=0, epoch=1)
    assert table.schema == PART
    row = table.to_pylist()[0]
    assert {name: row[name] for name in changes} == changes


def check_any_bytes(raw: bytes, status: int, headers: dict[str, str], kind: str, cut: str | None, step: int) -> None:
    reply = received(raw, status=status, headers=headers, cut=cut, step=step)
    if reply is None:
        return
    found = read(reply, kind)
    storable(found)
    if isinstance(found, RequestError):
        assert KEY not in str(found)
    if isinstance(found, RequestError) and ECHOED in raw:
        assert PROMPT not in str(found)
    if isinstance(found, Completion):
        assert 200 <= status < 300


@settings(max_examples=180, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    raw=BYTES,
    status=st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 413, 422, 429, 500, 503, 999]),
    headers=HEADERS,
    kind=st.sampled_from(sorted(PROVIDERS)),
    cut=CUTS,
    step=st.integers(1, 100),
)
def test_any_bytes_are_an_answer_or_an_error_and_can_be_stored(raw, status, headers, kind, cut, step):
    check_any_bytes(raw, status, headers, kind, cut, step)


@pytest.mark.slow
@settings(max_examples=4_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    raw=BYTES,
    status=st.integers(100, 999),
    headers=HEADERS,
    kind=st.sampled_from(sorted(PROVIDERS)),
    cut=CUTS,
    step=st.integers(1, 100),
)
def test_any_more_bytes(raw, status, headers, kind, cut, step):
    check_any_bytes(raw, status, headers, kind, cut, step)
