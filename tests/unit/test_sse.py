"""Server-sent events out of bytes."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.records import Event
from batchrunner.transport.sse import SSEDecoder


def decoded(*pieces: bytes) -> tuple[list[Event], bool]:
    decoder, events = SSEDecoder(), []
    for piece in pieces:
        events += decoder.feed(piece)
    return events + decoder.close(), decoder.done


def data(*texts: str) -> list[Event]:
    return [Event(name="message", data=text) for text in texts]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_at_cr_lf_or_both(end):
    raw = b"data: a" + end * 2 + b"data: b" + end + b"data: c" + end * 2

    assert decoded(raw) == (data("a", "b\nc"), False)


def test_a_crlf_split_between_reads_is_one_line_end():
    assert decoded(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == (data("a\nb"), False)


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfdata: a\n\n", b" data: a\n\n", b"\xef\xbb\xbf\ndata: a\n\n"])
def test_what_stands_in_front_of_the_first_field_does_not_hide_it(raw):
    assert decoded(raw)[0] == data("a")


def test_a_byte_order_mark_is_removed_only_once():
    assert decoded(b"data: a\n\n\xef\xbb\xbfdata: b\n\n")[0] == data("a")


def test_comments_ids_retries_and_unknown_fields_are_skipped():
    raw = b": hello\nid: 7\nretry: 3000\nfoo: bar\nid\ndata: a\n\n: bye\n\n"

    assert decoded(raw)[0] == data("a")


def test_one_blank_behind_the_colon_is_not_data():
    assert decoded(b"data:a\n\ndata:  b \n\n")[0] == data("a", " b ")


@pytest.mark.parametrize("raw", [b"data:\n\n", b"data: \n\n", b"data\n\n", b"data:\ndata:\n\n", b"event: ping\n\n"])
def test_an_event_without_data_is_a_heartbeat(raw):
    assert decoded(raw) == ([], False)


def test_an_event_keeps_its_name_and_the_next_one_has_none():
    raw = b"event: error\ndata: x\n\nevent: ping\n\ndata: y\n\n"

    assert decoded(raw)[0] == [Event(name="error", data="x"), *data("y")]


def test_a_field_named_error_is_an_error_event():
    assert decoded(b'error: {"code":400}\n\n')[0] == [Event(name="error", data='{"code":400}')]


def test_the_last_event_needs_no_blank_line():
    assert decoded(b"data: a\n\ndata: b")[0] == data("a", "b")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\n\ndata: late\n\n"])
def test_nothing_counts_after_done(end):
    assert decoded(b"data: a\n\ndata: [DONE]" + end) == (data("a"), True)


def test_done_ends_an_event_that_no_blank_line_ended():
    assert decoded(b"data: a\ndata: [DONE]\n\n") == (data("a"), True)


def test_done_is_known_before_the_connection_ends():
    decoder = SSEDecoder()

    decoder.feed(b"data: [DONE]\n")

    assert decoder.done
    assert decoder.feed(b"data: late\n\n") == []


def test_line_separators_inside_a_text_split_nothing():
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"

    assert decoded(f"data: {text}\n\n".encode())[0] == data(text)


def test_bytes_that_are_no_utf8_are_replaced():
    assert decoded(b"data: a\xffb\n\n")[0] == data("a\ufffdb")


def test_a_character_split_between_reads_is_whole():
    assert decoded(b"data: \xc3", b"\xa9\n\n")[0] == data("é")


@pytest.mark.parametrize("piece_bytes", [1, 65_536])
def test_a_long_line_takes_time_by_its_length_only(piece_bytes):
    size = 200 * 1024 if piece_bytes == 1 else 30 * 1024 * 1024
    raw = b"data: " + b"y" * size + b"\n\ndata: [DONE]\n\n"
    started_at = time.perf_counter()

    events, done = decoded(*(raw[at : at + piece_bytes] for at in range(0, len(raw), piece_bytes)))

    assert (len(events[0].data), done) == (size, True)
    assert time.perf_counter() - started_at < 5


LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b\xc3\xa9",
        b"",
        b"",
        b"event: e",
        b"error: x",
        b": c",
        b"data: [DONE]",
        b"\xef\xbb\xbf",
        b"data",
    ]
)
RAW = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(raw=RAW | st.binary(max_size=60), cuts=st.lists(st.integers(0, 120), max_size=8))
def test_however_the_bytes_are_split_the_events_are_the_same(raw, cuts):
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in pairwise(places)]

    assert decoded(*pieces) == decoded(raw)
    assert decoded(*(raw[at : at + 1] for at in range(len(raw)))) == decoded(raw)
