"""What a body's bytes become: told apart, inflated under caps, split anywhere."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.transport.body import Body, kind_of
from batchrunner.transport.inflate import Inflater, Unreadable

MIB = 1024 * 1024
ANSWER = b'{"choices": [{"message": {"content": "hi"}}]}'
EVENTS = b'data: {"a": 1}\n\ndata: [DONE]\n\n'


def body(*, encoding: str = "", content_type: str = "application/json", max_bytes: int = 32 * MIB) -> Body:
    return Body(encoding=encoding, content_type=content_type, max_bytes=max_bytes)


def inflated(encoding: str, data: bytes, *, size: int = 0, max_bytes: int = 32 * MIB) -> tuple[bytes, bool]:
    """What `data` decodes to when it comes in pieces of `size` bytes, and whether it ends there."""
    inflater = Inflater(encoding, max_bytes)
    step = size or max(len(data), 1)
    return b"".join(inflater.feed(data[at : at + step]) for at in range(0, len(data), step)), inflater.ended


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("start", "labelled", "kind"),
    [
        (b"data: 1", False, "stream"),
        (b": comment", False, "stream"),
        (b"event:x", False, "stream"),
        (b"id: 1", False, "stream"),
        (b"retry: 1", False, "stream"),
        (b"error: {}", False, "stream"),
        (b"\xef\xbb\xbf\r\n data: 1", False, "stream"),
        (b"data", False, None),
        (b"\xef\xbb", False, None),
        (b" \n", False, None),
        (b"", True, None),
        (b"database", False, "plain"),
        (b"{", False, "plain"),
        (b"<html>", False, "plain"),
        (b"\xef\xbb\xbf{", True, "plain"),
        (b" [", True, "plain"),
        (b"<html>", True, "plain"),
        (b"da", True, "stream"),
    ],
)
def test_the_first_bytes_tell_events_from_a_plain_body(start: bytes, labelled: bool, kind: str | None) -> None:
    assert kind_of(start, labelled=labelled, ended=False) == kind


@pytest.mark.parametrize(
    ("start", "labelled", "kind"), [(b"data", False, "plain"), (b"", True, "stream"), (b"", False, "plain")]
)
def test_the_end_of_the_bytes_decides_what_is_open(start: bytes, labelled: bool, kind: str) -> None:
    assert kind_of(start, labelled=labelled, ended=True) == kind


@given(st.sampled_from([ANSWER, EVENTS, b"\n \n" + ANSWER, b"\xef\xbb\xbf" + EVENTS, b": x\n" + EVENTS]), st.data())
def test_how_the_bytes_are_split_does_not_matter(whole: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    one, many = body(), body()
    one.feed(whole)

    heard = [many.feed(whole[start:end]) for start, end in itertools.pairwise(cuts)]

    assert one.end(cut=None) == many.end(cut=None) is None
    assert (many.content, many.events, many.done) == (one.content, one.events, one.done)
    assert any(heard)


@pytest.mark.parametrize(
    "chunk", [b": keep-alive\n\n", b"data:\n\n", b"data: \n\n", b"\n", b"event: ping\n", b"id: 7\n"]
)
def test_noise_between_events_is_not_content(chunk: bytes) -> None:
    stream = body(content_type="text/event-stream")
    stream.feed(b"data: 1\n\n")

    assert [stream.feed(chunk), stream.feed(chunk)] == [False, False]


@pytest.mark.parametrize(
    "chunks", [[b"data: {"], [b"dat", b"a: {"], [b"data:", b" ", b"x"], [b": c\ndata: 1\n"], [b"error: 1\n"]]
)
def test_a_part_of_an_event_is_content(chunks: list[bytes]) -> None:
    stream = body(content_type="text/event-stream")

    assert [stream.feed(chunk) for chunk in chunks][-1]


def test_a_long_comment_is_never_content() -> None:
    stream = body(content_type="text/event-stream")

    assert not any(stream.feed(chunk) for chunk in (b": data: x", b"data: y", b" data: z\n"))


@pytest.mark.parametrize("size", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(ANSWER, mtime=0)),
        ("x-gzip", gzip.compress(ANSWER, mtime=0)),
        ("gzip", gzip.compress(ANSWER[:10], mtime=0) + gzip.compress(ANSWER[10:], mtime=0)),
        ("gzip", gzip.compress(ANSWER, mtime=0) + b"\0" * 8),
        ("deflate", zlib.compress(ANSWER)),
        ("deflate", raw_deflate(ANSWER)),
    ],
    ids=["gzip", "x-gzip", "two members", "padding", "zlib", "raw"],
)
def test_encodings_are_decoded_however_they_are_split(encoding: str, data: bytes, size: int) -> None:
    assert inflated(encoding, data, size=size) == (ANSWER, True)


@given(st.binary(max_size=3000).map(lambda data: data * 40), st.integers(1, 5000))
def test_inflating_gives_back_what_was_packed(data: bytes, size: int) -> None:
    assert inflated("gzip", gzip.compress(data, 9, mtime=0), size=size) == (data, True)


@pytest.mark.parametrize(
    ("encoding", "data"), [("gzip", gzip.compress(ANSWER * 50, mtime=0)), ("deflate", zlib.compress(ANSWER * 50))]
)
@pytest.mark.parametrize("cut", [1, 2, 30, -1])
def test_data_cut_short_is_noticed(encoding: str, data: bytes, cut: int) -> None:
    assert inflated(encoding, data[:cut])[1] is False


def test_a_cut_encoding_is_handed_over_as_cut() -> None:
    reply = body(encoding="gzip")
    reply.feed(gzip.compress(ANSWER, mtime=0)[:-9])

    assert reply.end(cut=None) == "the gzip data broke off"


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("gzip", ANSWER), ("deflate", ANSWER), ("gzip", gzip.compress(ANSWER, mtime=0)[:-8] + b"\0" * 8)],
    ids=["plain as gzip", "plain as deflate", "damaged"],
)
def test_a_false_label_is_malformed(encoding: str, data: bytes) -> None:
    with pytest.raises(Unreadable, match="and is not, or is damaged") as caught:
        inflated(encoding, data)

    assert (caught.value.verdict, caught.value.error_type) == ("retry", "malformed")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "identity"])
def test_a_plain_body_passes_under_any_other_label(encoding: str) -> None:
    reply = body(encoding=encoding)
    reply.feed(ANSWER)

    assert (reply.end(cut=None), reply.content) == (None, ANSWER)


def test_an_encoding_that_cannot_be_read_is_not_asked_for_again() -> None:
    reply = body(encoding="br")
    reply.feed(b"\x8b\x16\x80" + ANSWER + b"\x03")

    with pytest.raises(Unreadable, match="'br', which was not asked for") as caught:
        reply.end(cut=None)
    assert (caught.value.verdict, caught.value.error_type) == ("reject", "malformed")


def test_done_settles_a_stream_whose_encoding_goes_on() -> None:
    packed = gzip.compress(EVENTS, mtime=0)
    reply = body(encoding="gzip", content_type="text/event-stream")
    reply.feed(packed[:-8])

    assert (reply.done, reply.end(cut=None)) == (True, None)


def test_the_cap_counts_decoded_bytes() -> None:
    exact, over = body(max_bytes=100), body(max_bytes=100)
    exact.feed(b"x" * 100)

    with pytest.raises(Unreadable, match="larger than 100 bytes") as caught:
        over.feed(b"x" * 101)
    assert (caught.value.verdict, caught.value.error_type) == ("reject", "response_too_large")


@pytest.mark.parametrize("packed", [False, True])
def test_the_cap_counts_what_events_take(packed: bool) -> None:
    """A hundred bytes of memory for every byte that is sent would be no cap; packed, they all come at once."""
    tiny = b"".join(b"data: %d\n\n" % (n * 7919 % 10_007) for n in range(400_000))
    taken = body(encoding="gzip" if packed else "", max_bytes=8 * MIB)
    tracemalloc.start()

    with pytest.raises(Unreadable, match="larger than 8388608 bytes"):
        taken.feed(gzip.compress(tiny, 1, mtime=0) if packed else tiny)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 32 * MIB


def test_a_bomb_is_refused_early() -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB), mtime=0)
    tracemalloc.start()

    with pytest.raises(Unreadable, match="more than 200 times its size") as caught:
        inflated("gzip", bomb, size=1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught.value.error_type == "response_too_large"
    assert peak < 4 * MIB


def test_a_bomb_in_one_piece_stays_under_the_cap() -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB), mtime=0)
    tracemalloc.start()

    with pytest.raises(Unreadable):
        inflated("gzip", bomb, max_bytes=8 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 10 * MIB


def test_what_is_left_when_all_input_is_taken_is_not_lost() -> None:
    for size in range(64 * 1024, 64 * 1024 + 800):
        assert len(inflated("deflate", raw_deflate(b"y" * size))[0]) == size


def test_a_small_reply_may_pack_as_well_as_it_likes() -> None:
    packed = gzip.compress(b"y" * MIB, 9, mtime=0)

    assert inflated("gzip", packed) == (b"y" * MIB, True)
