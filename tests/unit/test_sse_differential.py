"""Our decoder against httpx-sse: the same events of any valid stream, however it comes in pieces."""

from __future__ import annotations

import httpx
from httpx_sse import EventSource
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.transport.sse import SSEDecoder

# Left out is what the two do differently on purpose: `error` fields, `[DONE]`, events without data, a byte order mark.
TEXT = st.text(st.characters(exclude_characters="\r\n\0\ufeff", exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: text.strip() != "[DONE]"
)
NAMES = st.sampled_from(["data", "data", "data", "event", "id", "retry", "other", "Data", "data "])
LINES = st.one_of(
    st.builds("{}: {}".format, NAMES, TEXT),
    st.builds("{}:{}".format, NAMES, TEXT),
    st.builds(":{}".format, TEXT),
    NAMES,
    st.just(""),
    st.just(""),
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def theirs(raw: bytes) -> list[tuple[str, str]]:
    reply = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=raw)
    found = [(event.event or "message", event.data) for event in EventSource(reply).iter_sse()]
    return [(name, data) for name, data in found if data and not data.isspace()]


def ours(raw: bytes, cuts: list[int]) -> list[tuple[str, str]]:
    decoder, places = SSEDecoder(), sorted({cut % (len(raw) + 1) for cut in cuts})
    pieces = [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
    events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()
    return [(event.name, event.data) for event in events]


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.tuples(LINES, ENDS), max_size=25),
    cuts=st.lists(st.integers(0, 2_000), max_size=8),
)
def test_both_find_the_same_events(lines, cuts):
    raw = ("data: first\n" + "".join(line + end for line, end in lines) + "\n\n").encode()

    assert ours(raw, cuts) == theirs(raw)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT.filter(lambda text: text and not text.isspace()), min_size=1, max_size=6), end=ENDS)
def test_every_byte_on_its_own_gives_the_same_events(texts, end):
    raw = "".join(f"data: {text}{end}{end}" for text in texts).encode()

    assert ours(raw, list(range(len(raw)))) == theirs(raw) == [("message", text) for text in texts]
