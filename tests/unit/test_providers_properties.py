"""Any stream, cut anywhere: its whole text, or an error; never a part of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchrunner import providers
from batchrunner.errors import RequestError
from batchrunner.records import Completion, Reply
from batchrunner.transport.sse import SSEDecoder

PROVIDERS = [providers.load(kind) for kind in providers.available()]
PIECES = st.lists(st.text(st.characters(codec=None), max_size=5), min_size=1, max_size=6)


def chunks(pieces: list[str], arguments: list[str]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, *({"content": piece} for piece in pieces)]
    deltas += [{"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": a}}]} for a in arguments]
    listed = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    listed.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    return [*({"id": "c", "model": "m", "choices": [each]} for each in listed), usage]


def written(listed: list[dict[str, Any]], end: str, ascii_only: bool) -> bytes:
    texts = [json.dumps(each, ensure_ascii=ascii_only) for each in listed] + ["[DONE]"]
    return "".join(f"data: {text}{end}{end}" for text in texts).encode("utf-8", "replace")


def parsed(raw: bytes, cut: str | None) -> Completion | None:
    decoder = SSEDecoder()
    events = (*decoder.feed(raw), *decoder.close())
    reply = Reply(status=200, headers={}, events=events, done=decoder.done, cut=cut)
    try:
        return PROVIDERS[0].parse(reply)
    except RequestError as error:
        assert error.verdict == "retry", str(error)  # noqa: PT017
        return None


@given(
    pieces=PIECES,
    arguments=st.lists(st.text(max_size=4), max_size=3),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    ascii_only=st.booleans(),
    cut=st.sampled_from([None, "closed early"]),
    data=st.data(),
)
def test_a_stream_cut_anywhere_is_whole_or_an_error(pieces, arguments, end, ascii_only, cut, data):
    raw = written(chunks(pieces, arguments), end, ascii_only)
    whole = parsed(raw, None)
    assert whole is not None

    part = parsed(raw[: data.draw(st.integers(0, len(raw)))], cut)

    assert part is None or (part.text, part.tool_calls) == (whole.text, whole.tool_calls)


@given(pieces=PIECES, cut_at=st.integers(0, 400))
def test_a_plain_reply_cut_anywhere_is_whole_or_an_error(pieces, cut_at):
    message = {"content": "".join(pieces)}
    raw = json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 12}}
    ).encode()
    part = raw[:cut_at]

    try:
        found = PROVIDERS[0].parse(Reply(status=200, headers={}, body=part))
    except RequestError as error:
        assert (error.error_type, part != raw) == ("truncated" if part else "empty", True)  # noqa: PT017
        return

    assert part == raw
    assert f"{found}".encode()


@given(pieces=PIECES)
def test_every_dialect_reads_the_same_answer(pieces):
    raw = written(chunks(pieces, []), "\n", ascii_only=True)
    decoder = SSEDecoder()
    reply = Reply(status=200, headers={}, events=tuple(decoder.feed(raw)), done=True)

    found = {provider.parse(reply).text for provider in PROVIDERS}

    assert len(found) == 1
    assert found == {"".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")}
