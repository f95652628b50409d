"""Replies that bend the rules in ways nobody documents: read as a careful person would read them."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

from case_forms import JSON, SSE, answered, case, chunk, events, failed, plain, stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from case_forms import Case

HI = chunk({"content": "hi"})
STOP = chunk({}, "stop")


def oddities() -> Iterator[Case]:
    for group in (shapes, errors, folded, streams, tools, labels, ends):
        yield from group()


def several(*choices: Any) -> Case:
    return {"status": 200, "headers": JSON, "body_json": {"choices": list(choices)}}


def said(index: Any, content: Any, finish_reason: Any = "stop") -> Case:
    return {"index": index, "message": {"content": content}, "finish_reason": finish_reason}


def shapes() -> Iterator[Case]:
    """Messages and choices with something missing, null or of another type."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = answered(None, finish_reason="tool_calls", tool_calls=[call])
    yield case("calls, content null", plain({"content": None, "tool_calls": [call]}, finish_reason="tool_calls"), asked)
    yield case("calls, no content", plain({"tool_calls": [call]}, finish_reason="tool_calls"), asked)
    yield case("calls, no list", plain({"tool_calls": call}, finish_reason="tool_calls"), asked)
    numbered = plain({"tool_calls": [{**call, "id": 7}]}, finish_reason="tool_calls")
    yield case("a call's id is a number", numbered,
               answered(None, finish_reason="tool_calls", tool_calls=[{**call, "id": "7"}]))  # fmt: skip
    for title, message, reason, expect in (
        ("empty, stop", {"content": ""}, "stop", answered("")),
        ("empty, length", {"content": ""}, "length", answered("", finish_reason="length")),
        ("null, stop", {"content": None}, "stop", answered(None)),
        ("empty, no reason", {"content": ""}, None, failed("empty", "yes")),
        ("no parts, no reason", {"content": []}, None, failed("empty", "yes")),
        ("no calls, no reason", {"content": None, "tool_calls": []}, None, failed("empty", "yes")),
        ("a number", {"content": 5}, "stop", failed("malformed", "yes")),
        ("an object", {"content": {"text": "hi"}}, "stop", failed("malformed", "yes")),
        ("parts that are null", {"content": [None, {"type": "text", "text": "hi"}, {"text": None}]}, "stop",
         answered("hi")),
        ("a reason that is a number", {"content": "hi"}, 5, answered("hi", finish_reason=None)),
    ):  # fmt: skip
        yield case(f"content: {title}", plain(message, finish_reason=reason), expect)
    for title, choices in (("null", [None]), ("empty objects", [{}]), ("a list", [[]]), ("a text", ["hi"])):
        yield case(f"choices: {title}", several(*choices), failed("malformed", "yes"))
    yield case("choices is null", plain({"content": "hi"}, choices=None), failed("malformed", "yes"))
    yield case("message is null", several({"index": 0, "message": None, "finish_reason": "stop"}),
               failed("malformed", "yes"))  # fmt: skip
    yield case("indexes are texts", several(said("1", "B"), said("0", "A")), answered("A", n_texts=["A", "B"]))
    yield case("indexes are missing", several(said(None, "A"), said(None, "B")), answered("A", n_texts=["A", "B"]))
    yield case("behind JSON stands more", stream(json.dumps(plain({"content": "hi"})["body_json"]) + "{}")
               | {"headers": JSON}, failed("malformed", "yes"))  # fmt: skip
    yield case("204", {"status": 204, "headers": {}, "body": ""}, failed("empty", "yes"))
    yield case("201 with an answer", plain({"content": "hi"}) | {"status": 201}, answered("hi"))


def errors() -> Iterator[Case]:
    """`error` in every type, alone and beside an answer; what says nothing is no error."""
    for value in (None, False, "", [], {}, 0):
        yield case(f"error: {value!r} beside an answer", plain({"content": "hi"}, error=value), answered("hi"))
        body = events(HI | {"error": value}, STOP)
        yield case(f"error: {value!r} in a stream", stream(body), answered("hi"))
    told: list[tuple[Any, str, str]] = [
        ("boom", "server", "yes"), (True, "server", "yes"), (["boom"], "server", "yes"), (429, "rate_limit", "yes"),
        ("429", "rate_limit", "yes"), ({"code": 429.0}, "rate_limit", "yes"), ({"status": "503"}, "overloaded", "yes"),
        ([{"message": "m", "code": 429}], "rate_limit", "yes"), ({"message": None}, "server", "yes"),
        ({"code": "model_not_found"}, "not_found", "abort"), ({"code": 1e400}, "server", "yes"),
    ]  # fmt: skip
    for value, error_type, retry in told:
        expect = failed(error_type, retry)
        text = json.dumps({"error": value, "choices": [said(0, "hi")]}).replace("Infinity", "1e400")
        whole = {"status": 200, "headers": JSON, "body": text}
        yield case(f"error: {value!r}"[:90], whole, expect)
    for status in (429, 500, 503, 401):
        odd = f'{{"error":{{"message":"m","code":{"9" * 400},"retry_after":{"9" * 400}}}}}'
        deep = '{"error":{"message":' + "[" * 700 + "]" * 700 + "}}"
        huge = '{"error":{"message":{"a":' + "9" * 5_000 + "}}}"
        kinds = {429: "rate_limit", 500: "server", 503: "overloaded", 401: "auth"}
        for title, body in (("numbers of 400 digits", odd), ("a deep message", deep), ("5,000 digits", huge)):
            reply = {"status": status, "headers": JSON, "body": body}
            yield case(f"{status}, {title}", reply, failed(kinds[status], "abort" if status == 401 else "yes"))


def folded() -> Iterator[Case]:
    """A 429 or 503 that older nodes fold into a 400, in every way of writing it."""
    inner = '{"providerModelError":{"error":{"message":"slow"}},"statusCode":%s}'
    for status, error_type in ((429, "rate_limit"), (503, "overloaded")):
        for title, body in (
            ("a number", {"statusCode": status}),
            ("a text", {"statusCode": str(status)}),
            ("in a text", {"error": inner % status}),
            ("in a text in a text", {"error": json.dumps({"error": inner % status})}),
            ("three texts deep", {"error": json.dumps({"e": json.dumps({"e": inner % status})})}),
            ("in a message", {"error": {"message": "upstream: " + inner % f' "{status}"'}}),
            ("as Python writes it", {"detail": f"{{'statusCode': {status}}}"}),
        ):
            reply = {"status": 400, "headers": JSON, "body_json": body}
            yield case(f"{status} folded: {title}", reply, failed(error_type, "yes"), provider="gateway")
    for title, told in (("400", {"statusCode": 400}), ("4290", {"statusCode": 4290})):
        reply = {"status": 400, "headers": JSON, "body_json": told}
        yield case(f"no 429: statusCode {title}", reply, failed("bad_request", "no"), provider="gateway")


def streams() -> Iterator[Case]:
    """Chunks that hold more or less than they should."""
    whole = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
    empty_delta = {"choices": [{**whole["choices"][0], "delta": {}}]}
    beside = {"choices": [{"index": 0, "delta": {}, "message": {"content": "hi"}, "finish_reason": "stop"}]}
    texts = [{"choices": [{"index": 0, "text": t, "finish_reason": r}]} for t, r in (("h", None), ("i", "stop"))]
    half = '{"choices":[{"index":0,"delta":{"content":"wor'
    again = chunk({"content": "a"}, "stop")
    for title, body, expect in (
        ("a whole message", events(whole, end=""), answered("hi")),
        ("a whole message beside an empty delta", events(empty_delta), answered("hi")),
        ("a whole message repeats the deltas", events(HI, beside), answered("hi")),
        ("texts of the older endpoint", events(*texts, end=""), answered("hi")),
        ("a null chunk", events(HI, {"choices": None, "usage": None}, STOP), answered("hi")),
        ("an empty chunk", events(HI, {}, STOP), answered("hi")),
        ("half a chunk in front of [DONE]", events(HI, end=f"data: {half}\n\ndata: [DONE]\n\n"),
         failed("malformed", "yes")),
        ("half a chunk in the middle", events(HI, end=f"data: {half}\n\n") + events(STOP), failed("malformed", "yes")),
        ("half a chunk at the end", events(HI, end=f"data: {half}"), failed("truncated", "yes")),
        ("half a text behind a repeated finish_reason", events(again, end=f"data: {half}"), failed("truncated", "yes")),
        ("half a usage behind the finish_reason", events(HI, STOP, end='data: {"choices":[],"usage":{"pro'),
         answered("hi")),
        ("half an error behind the finish_reason", events(HI, STOP, end='data: {"error":{"mess'),
         failed("truncated", "yes")),
        ("a word", events(HI, end="data: ping\n\n") + events(STOP), failed("malformed", "yes")),
        ("choices by texts", events(*(chunk_at(i, t, r) for i, t, r in (("0", "A", None), ("1", "B", None),
         ("0", "a", "stop"), ("1", "b", "stop"))), end=""), answered("Aa", n_texts=["Aa", "Bb"])),
        ("an error event in words", events(HI, STOP, end="event: error\ndata: oh no\n\n"), failed("server", "yes")),
        ("an error event of another protocol", events(HI, end=(
         'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n')),
         failed("overloaded", "yes")),
        ("an error behind [DONE]", events(HI, STOP) + events({"error": "late"}, end=""), answered("hi")),
        ("usage that is none behind one that is", events(HI | {"usage": {"prompt_tokens": 4, "completion_tokens": 1}},
         STOP | {"usage": {"prompt_tokens": -1}}), answered("hi", usage=[4, 1, 5])),
        ("only usage", events({"choices": [], "usage": {"prompt_tokens": 4}}), failed("empty", "yes")),
    ):  # fmt: skip
        yield case(f"stream: {title}", stream(body), expect)


def chunk_at(index: Any, content: str, finish_reason: str | None) -> Case:
    return {"choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish_reason}]}


def tools() -> Iterator[Case]:
    """Fragments of tool calls that name themselves badly."""

    def fragment(arguments: Any, **more: Any) -> Case:
        named = {"name": more.pop("name")} if "name" in more else {}
        return {**more, "function": {**named, "arguments": arguments}}

    def kept(arguments: str, name: str = "f", call_id: str | None = "a") -> Case:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    for title, fragments, found in (
        ("indexes are texts", [fragment("{", index="0", id="a", name="f"), fragment("{", index="1", id="b", name="g"),
         fragment("}", index="0"), fragment("}", index="1")], [kept("{}"), kept("{}", "g", "b")]),
        ("every fragment has an id of its own", [fragment('{"x"', index=0, id="a", name="f"),
         fragment(":", index=0, id="a2"), fragment("1}", index=0, id="a3")], [kept('{"x":1}')]),
        ("the id comes last", [fragment("{", index=0, name="f"), fragment("}", index=0, id="a")], [kept("{}")]),
        ("no ids, one index, two names", [fragment("{}", index=0, name="f"), fragment("[]", index=0, name="g")],
         [kept("{}", call_id=None), kept("[]", "g", None)]),
        ("no ids, one index, one name", [fragment('{"x":1}', index=0, name="f"), fragment('{"x":2}', index=0,
         name="f")], [kept('{"x":1}', call_id=None), kept('{"x":2}', call_id=None)]),
        ("ids are numbers", [fragment("{}", index=0, id=1, name="f"), fragment("{}", index=0, id=2, name="g")],
         [kept("{}", call_id="1"), kept("{}", "g", "2")]),
        ("arguments are an object", [fragment({"x": 1}, index=0, id="a", name="f")], [kept('{"x":1}')]),
        ("arguments are null", [fragment(None, index=0, id="a", name="f")], [kept("")]),
        ("indexes begin at 1", [fragment("{}", index=1, id="a", name="f"), fragment("{}", index=2, id="b", name="g")],
         [kept("{}"), kept("{}", "g", "b")]),
        ("the function comes later", [{"index": 0, "id": "a", "function": None}, fragment("{}", index=0, name="f")],
         [kept("{}")]),
        ("the name in two pieces", [fragment("", index=0, id="a", name="f_"), fragment("{}", index=0, name="g")],
         [kept("{}", "f_g")]),
        ("a custom tool", [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x ="}},
         {"index": 0, "custom": {"input": " 1"}}],
         [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x = 1"}}]),
    ):  # fmt: skip
        body = events(*(chunk({"tool_calls": [each]}) for each in fragments), chunk({}, "tool_calls"))
        yield case(f"fragments: {title}", stream(body), answered(None, finish_reason="tool_calls", tool_calls=found))
    bare = events(chunk({"tool_calls": fragment("{}", index=0, id="a", name="f")}, "tool_calls"))
    yield case("fragments: no list", stream(bare), answered(None, finish_reason="tool_calls", tool_calls=[kept("{}")]))


def labels() -> Iterator[Case]:
    """Bodies that are not what their headers say."""
    body = json.dumps(plain({"content": "hi"})["body_json"]).encode()
    raw: list[tuple[str, bytes, dict[str, str], Case]] = [
        ("JSON called a stream", body, SSE, answered("hi")),
        ("a page called a stream", b"<!DOCTYPE html><title>Sign in</title>", SSE, failed("malformed", "yes")),
        ("an error called a stream", b'{"error":{"code":429,"message":"m"}}', SSE, failed("rate_limit", "yes")),
        ("br that is br", b"\x8b\x0f\x80hi\xff\x03", JSON | {"Content-Encoding": "br"}, failed("malformed", "no")),
        ("zstd that is text", body, JSON | {"Content-Encoding": "zstd"}, answered("hi")),
        ("deflate without its header", zlib.compress(body)[2:-4], JSON | {"Content-Encoding": "deflate"},
         answered("hi")),
        ("gzip in capitals", gzip.compress(body, mtime=0), JSON | {"Content-Encoding": "GZIP"}, answered("hi")),
        ("gzip with zeros behind", gzip.compress(body, mtime=0) + b"\0" * 9, JSON | {"Content-Encoding": "gzip"},
         answered("hi")),
        ("gzip of nothing", b"", JSON | {"Content-Encoding": "gzip"}, failed("empty", "yes")),
        ("UTF-16", body.decode().encode("utf-16"), JSON, failed("malformed", "yes")),
    ]  # fmt: skip
    for title, data, headers, expect in raw:
        yield case(title, _bytes(data, headers=headers), expect)
    damaged = bytearray(gzip.compress(body, mtime=0))
    damaged[-6] ^= 0xFF
    yield case("gzip with a wrong sum", _bytes(bytes(damaged), headers=JSON | {"Content-Encoding": "gzip"}),
               failed("malformed", "yes"))  # fmt: skip
    zipped = gzip.compress(json.dumps({"error": "no"}).encode(), mtime=0)[:-9]
    yield case("a refusal whose gzip is cut", _bytes(zipped, status=503, headers=JSON | {"Content-Encoding": "gzip"}),
               failed("overloaded", "yes"))  # fmt: skip


def _bytes(data: bytes, *, status: int = 200, headers: dict[str, str]) -> Case:
    return {"status": status, "headers": headers, "body_b64": base64.b64encode(data).decode()}


def ends() -> Iterator[Case]:
    """Connections that break in the middle of what has been said already."""
    limited = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    for end in ("cut", "rst", "close", "hang"):
        reply = {"status": 429, "headers": JSON | {"Retry-After": "2"}, "body_json": limited, "end": end}
        yield case(f"{end} behind a whole refusal", reply, failed("rate_limit", "yes", 2.0))
        torn = {"status": 500, "headers": JSON, "body": '{"error":{"message":"th', "end": end}
        yield case(f"{end} in a refusal", torn, failed("server", "yes"))
        done = stream(events(HI, STOP, end=""), end=end)
        yield case(f"{end} behind the last finish_reason", done, answered("hi"))
        yield case(f"{end} behind a whole answer", plain({"content": "hi"}) | {"end": end}, answered("hi"))
    for end in ("cut", "rst"):
        first = stream(events(chunk_at(0, "A", "stop"), chunk_at(1, "B", None), end=""), end=end)
        yield case(f"{end} when one of two choices has ended", first, failed("truncated", "yes"))
