"""Writes own_cases.jsonl: replies that the shared cases leave out, with what the rules say of them.

    python tests/wire/make_own_cases.py

What is expected stands here by hand or in `STATUSES`; nothing of the package is asked.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case_forms import JSON, SSE, answered, case, chunk, events, failed, plain, stream
from oddity_cases import oddities
from server_cases import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from case_forms import Case

PROVIDERS = ("openai", "tess", "gateway", "opentools")
STATUSES = {
    400: ("bad_request", "no"), 401: ("auth", "abort"), 402: ("billing", "abort"), 403: ("permission", "no"),
    404: ("not_found", "abort"), 405: ("bad_request", "no"), 406: ("bad_request", "no"), 408: ("timeout", "yes"),
    409: ("conflict", "yes"), 413: ("too_large", "no"), 415: ("bad_request", "no"), 422: ("bad_request", "no"),
    425: ("conflict", "yes"), 429: ("rate_limit", "yes"), 498: ("overloaded", "yes"), 500: ("server", "yes"),
    502: ("server", "yes"), 503: ("overloaded", "yes"), 504: ("timeout", "yes"), 520: ("server", "yes"),
    522: ("server", "yes"), 525: ("server", "yes"), 527: ("server", "yes"), 529: ("overloaded", "yes"),
    530: ("server", "yes"), 300: ("redirect", "abort"), 307: ("redirect", "abort"),
}  # fmt: skip
"""WIRE section 7."""
ENVELOPES: dict[str, Any] = {
    "object": {"error": {"message": "It went wrong.", "type": None, "param": None, "code": None}},
    "text": {"error": "It went wrong."},
    "fields": {"error": "It went wrong.", "messages": {"temperature": ["It is out of range."]}},
    "detail": {"detail": "It went wrong."},
    "list": {"detail": [{"loc": ["body", "n", 0], "msg": "It went wrong.", "type": "odd", "input": "a prompt"}]},
    "errors": {"message": "It went wrong.", "errors": {"temperature": ["It is out of range."]}},
    "bare": {"object": "error", "message": "It went wrong.", "type": "Odd", "param": None},
    "none": None,
    "page": "<!DOCTYPE html><html><head><title>Oh</title></head><body>It went wrong.</body></html>",
    "array": [{"error": {"message": "It went wrong.", "code": None}}],
}
"""The shapes in which errors come."""


def refusals() -> Iterator[Case]:
    """Every provider meets every status, the envelopes taking turns, and every envelope with a 429 and a 500."""
    turns = itertools.cycle(ENVELOPES)
    pairs = [(provider, status, next(turns)) for provider in PROVIDERS for status in STATUSES]
    pairs += [(provider, status, shape) for provider in PROVIDERS for status in (429, 500) for shape in ENVELOPES]
    for provider, status, shape in pairs:
        error_type, retry = STATUSES[status]
        if provider == "tess" and status == 403:
            error_type, retry = "auth", "abort"
        told = ENVELOPES[shape]
        body = {"body": told or ""} if told is None or isinstance(told, str) else {"body_json": told}
        reply = {"status": status, "headers": {} if told is None else JSON, **body}
        yield case(f"{provider}: {status}, {shape}", reply, failed(error_type, retry), provider=provider)


def words() -> Iterator[Case]:
    """Codes and types that say more than the status, in a status of their own and inside a 200."""
    quota = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    full = {"message": "This model's maximum context length is 8192 tokens", "code": "context_length_exceeded"}
    told = [
        ("quota", quota, failed("billing", "abort"), (200, 403, 429)),
        ("context", full, failed("context_length", "no"), (200, 400)),
        ("filter", {"message": "no", "code": "content_filter"}, failed("content_filter", "no"), (200, 400)),
        ("numeric 503", {"message": "no", "code": 503}, failed("overloaded", "yes"), (200,)),
        ("text 429", {"message": "no", "code": "429"}, failed("rate_limit", "yes"), (200,)),
        ("status 401", {"message": "no", "status": 401}, failed("auth", "abort"), (200,)),
        ("status 413", {"message": "no", "status": 413}, failed("too_large", "no"), (200,)),
        ("server_error", {"message": "no", "type": "server_error"}, failed("server", "yes"), (200, 500)),
        ("no word", {"message": "no"}, failed("server", "yes"), (200,)),
        ("text", "no", failed("server", "yes"), (200,)),
        ("invalid request", {"message": "no", "type": "invalid_request_error"}, failed("bad_request", "no"), (200,)),
    ]
    for title, error, expect, statuses in told:
        for status in statuses:
            reply = {"status": status, "headers": JSON, "body_json": {"error": error}}
            yield case(f"{title} in a {status}", reply, expect)
        begun = chunk({"content": "Once upon"})
        yield case(f"{title} after text, then [DONE]", stream(events(begun, {"error": error})), expect)
        yield case(f"{title} before text", stream(events({"error": error}, begun, chunk({}, "stop"))), expect)
    named = f"event: error\ndata: {json.dumps({'error': quota})}\n\n"
    finished = events(chunk({"content": "hi"}, "stop"), end=named + "data: [DONE]\n\n")
    yield case("an error event behind a finished text", stream(finished), failed("billing", "abort"))
    folded = {"error": 'upstream: {"statusCode":503}'}
    yield case("503 folded into a 400", {"status": 400, "headers": JSON, "body_json": folded},
               failed("overloaded", "yes"), provider="gateway")  # fmt: skip
    nothing = plain({"content": "hi"}, error=None)
    yield case("error: null is no error", nothing, answered("hi"))
    long = {"status": 500, "headers": JSON, "body_json": {"error": {"message": "<b>é</b> " * 3_000}}}
    yield case("a message of 27,000 characters", long, failed("server", "yes"))
    echo = {"error": {"message": "bad key sk-canary-0123456789, Bearer sk-canary-0123456789"}}
    yield case("the key is echoed", {"status": 401, "headers": JSON, "body_json": echo}, failed("auth", "abort"))


def hints() -> Iterator[Case]:
    """How long to wait, in every form."""
    limit = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    headers: list[tuple[dict[str, str], float | str]] = [
        ({"Retry-After": "7"}, 7.0), ({"Retry-After": "0.5"}, 0.5), ({"Retry-After": "00007"}, 7.0),
        ({"Retry-After": "300"}, 300.0), ({"Retry-After": "300.5"}, "defer"), ({"Retry-After": "99999999999"}, "defer"),
        ({"Retry-After": "-1"}, "backoff"), ({"Retry-After": "+5"}, "backoff"), ({"Retry-After": "nan"}, "backoff"),
        ({"Retry-After": "inf"}, "backoff"), ({"Retry-After": "1_000"}, "backoff"), ({"Retry-After": ".5"}, "backoff"),
        ({"Retry-After": "5."}, "backoff"), ({"Retry-After": "5s"}, "backoff"), ({"Retry-After": "0x10"}, "backoff"),
        ({"Retry-After": "0.0"}, "backoff"), ({"Retry-After": "soon"}, "backoff"), ({"Retry-After": "\xb2"}, "backoff"),
        ({"Retry-After": "Fri, 20 Nov 2026 18:00:20 GMT"}, 20.0), ({"Retry-After": "9" * 400}, "backoff"),
        ({"Retry-After": "Friday, 20-Nov-26 18:00:20 GMT"}, 20.0),
        ({"Retry-After": "Fri, 20 Nov 2026 18:00:00 GMT"}, "backoff"),
        ({"Retry-After": "Sat, 21 Nov 2026 18:00:00 GMT"}, "defer"),
        ({"Retry-After": "Fri, 31 Feb 2026 18:00:00 GMT"}, "backoff"),
        ({"retry-after-ms": "1500"}, 1.5), ({"retry-after-ms": "abc", "Retry-After": "4"}, 4.0),
        ({"retry-after-ms": "-5", "Retry-After": "4"}, 4.0), ({"retry-after-ms": "400000"}, "defer"),
        ({"retry-after-ms": "0", "Retry-After": "4"}, 4.0), ({"Retry-After-Ms": "250.5"}, 0.2505),
    ]  # fmt: skip
    for told, wait in headers:
        reply = {"status": 429, "headers": JSON | told, "body_json": limit}
        yield case(f"429, {told}"[:90], reply, _limited(wait))
    bodies: list[tuple[Any, float | str]] = [(5, 5.0), (2.5, 2.5), (0, "backoff"), (-3, "backoff"), (True, "backoff"),
                                             (301, "defer"), (None, "backoff"), ([5], "backoff"),
                                             ("soon", "backoff")]  # fmt: skip
    for value, wait in bodies:
        for title, body in (
            ("root", {"error": "Rate limit exceeded", "retry_after": value}),
            ("error", {"error": {"message": "no", "retry_after": value}}),
        ):
            reply = {"status": 429, "headers": JSON, "body_json": body}
            yield case(f"429, retry_after {value!r} at the {title}", reply, _limited(wait), provider="tess")
    for status, error_type in ((408, "timeout"), (409, "conflict"), (500, "server"), (502, "server"),
                               (503, "overloaded")):  # fmt: skip
        reply = {"status": status, "headers": JSON | {"Retry-After": "2"}, "body_json": {"error": "no"}}
        yield case(f"{status} with Retry-After", reply, failed(error_type, "yes", 2.0))
    for status, error_type, retry in ((400, "bad_request", "no"), (401, "auth", "abort"), (413, "too_large", "no")):
        reply = {"status": status, "headers": JSON | {"Retry-After": "2"}, "body_json": {"error": "no"}}
        yield case(f"{status} is no matter of waiting", reply, failed(error_type, retry))
    inside = {"error": {"code": 429, "message": "no", "retry_after": 9}}
    yield case("hint inside a 200", {"status": 200, "headers": JSON, "body_json": inside}, _limited(9.0))
    yield case("hint inside a stream", stream(events(inside, end="")), _limited(9.0))


def _limited(wait: float | str) -> Case:
    return failed("rate_limit", "defer" if wait == "defer" else "yes", wait)


def splits() -> Iterator[Case]:
    """One text, in several spellings of a stream, in pieces of several sizes."""
    text = 'Grüße \U0001f600 \u2028 \\ " [DONE] data: end'
    whole = events(chunk({"role": "assistant", "content": ""}), chunk({"content": text[:8]}),
                   chunk({"content": text[8:]}), chunk({}, "stop"), end="")  # fmt: skip
    usage = events({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 6}}, end="")
    spellings = {
        "LF": whole + usage + "data: [DONE]\n\n",
        "CRLF": (whole + usage + "data: [DONE]\n\n").replace("\n", "\r\n"),
        "CR": (whole + usage + "data: [DONE]\n\n").replace("\n", "\r"),
        "BOM and comments": "\ufeff: hello\n\n" + _fields(whole + usage, ": x\ndata: ") + "data:[DONE]",
        "no [DONE]": whole + usage,
        "no last blank line": (whole + usage).rstrip("\n"),
        "no space": _fields(whole + usage, "data:") + "data:[DONE]\n\n",
        "fields": _fields(whole, "id: 7\nevent: message\nretry: 1\ndata: ") + usage + "data: [DONE]\n\n",
    }
    expect = answered(text, usage=[4, 6, 10])
    for (title, body), size in itertools.product(spellings.items(), (1, 2, 3, 7, 61)):
        yield case(f"{title} in pieces of {size}", stream(body, chunk_bytes=size), expect)
    zipped = stream(gzip.compress(spellings["LF"].encode(), mtime=0), chunk_bytes=5)
    zipped["headers"] = SSE | {"Content-Encoding": "gzip"}
    yield case("gzip in pieces of 5", zipped, expect, stream=True)
    for label in ("text/plain", "application/json", "application/octet-stream"):
        reply = stream(spellings["LF"], chunk_bytes=11) | {"headers": {"Content-Type": label}}
        yield case(f"a stream called {label}", reply, expect, stream=True)
    for end in ("close", "cut", "rst"):
        yield case(f"{end} behind [DONE]", stream(spellings["LF"], end=end), expect)
        yield case(f"{end} without [DONE]", stream(events(chunk({"content": "Once"}), end=""), end=end),
                   failed("connection" if end == "rst" else "truncated", "yes"))  # fmt: skip
    yield case("two data lines make one event", stream(events(end=(
        'data: {"choices":[{"index":0,\ndata: "delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'))),
        answered("hi"))  # fmt: skip
    yield case("half of two choices", stream(events(
        {"choices": [{"index": i, "delta": {"content": "x"}, "finish_reason": None} for i in (0, 1)]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}, end="")),
        failed("truncated", "yes"))  # fmt: skip


def _fields(body: str, field: str) -> str:
    """The stream with another beginning of each event."""
    return re.sub(r"^data: ", field, body, flags=re.MULTILINE)


def usages() -> Iterator[Case]:
    """Tokens under every name, in both forms; what is no count is nothing."""
    parts = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    holders: list[tuple[str, Case]] = [
        (name, {name: parts}) for name in ("usage", "usage_from_consumer", "usage_from_provider")
    ]
    holders.append(("x_groq.usage", {"x_groq": {"id": "r", "usage": parts}}))
    holders.append(("a null before it", {"usage": None, "usage_from_consumer": parts}))
    other = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    holders.append(("two at once", {"usage": parts, "usage_from_provider": other}))
    for title, held in holders:
        expect = answered("hi", usage=[9, 3, 12])
        yield case(f"{title}, whole", plain({"content": "hi"}, **held), expect, provider="gateway")
        body = events(chunk({"content": "hi"}, "stop"), held)
        yield case(f"{title}, streamed", stream(body), expect, provider="gateway")
    counts: list[tuple[Any, Any, Any, list[int | None]]] = [
        (0, 0, 0, [0, 0, 0]), (9.0, 3.0, 12.0, [9, 3, 12]), ("9", "3", None, [9, 3, 12]),
        (-1, 3, None, [None, 3, None]), (True, 3, None, [None, 3, None]),
        (2**63 - 1, 0, None, [2**63 - 1, 0, 2**63 - 1]),
        (2**63, 3, 12, [None, 3, 12]), (2**63 - 1, 1, None, [2**63 - 1, 1, None]), ("9x", 3, 12, [None, 3, 12]),
        ([9], {"n": 3}, 12, [None, None, 12]), ("", 3, 12, [None, 3, 12]), (None, 3, 12, [None, 3, 12]),
        (1.5, 3, 12, [None, 3, 12]), ("-9", 3, 12, [None, 3, 12]), (1e300, 3, 12, [None, 3, 12]),
    ]  # fmt: skip
    for prompt, completion, total, found in counts:
        told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
        reply = plain({"content": "hi"}, usage=told)
        yield case(f"counts {prompt!r}, {completion!r}, {total!r}"[:90], reply, answered("hi", usage=found))
    growing = [chunk({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": n}) for n in (1, 2, 3)]
    yield case("cumulative usage is not summed", stream(events(*growing, chunk({}, "stop", usage=None))),
               answered("aaa", usage=[9, 3, 12]))  # fmt: skip


def calls() -> Iterator[Case]:
    """Tool calls, whole and in pieces; arguments byte for byte."""
    odd = ' { "a" :\t1.0, "b":"\\u00e9é\\n" , }\n'

    def stored(arguments: str, *, name: str = "f", call_id: str | None = "a") -> Case:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    def asked(*found: Case, text: str | None = None) -> Case:
        return answered(text, finish_reason="tool_calls", tool_calls=list(found))

    def fragment(arguments: Any, **more: Any) -> Case:
        named = {"name": more.pop("name")} if "name" in more else {}
        return {**more, "function": {**named, "arguments": arguments}}

    for title, arguments, kept in [("odd blanks", odd, odd), ("no JSON", "oops {", "oops {"), ("null", None, ""),
                                   ("empty", "", ""), ("an object", {"b": 1, "a": [True]}, '{"b":1,"a":[true]}'),
                                   ("a list", [1], "[1]")]:  # fmt: skip
        called = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
        reply = plain({"content": None, "tool_calls": [called]}, finish_reason="tool_calls")
        yield case(f"arguments: {title}", reply, asked(stored(kept)))
    untyped = plain({"content": "", "tool_calls": [fragment("{}", id="", name="f")]}, finish_reason="tool_calls")
    yield case("no type, empty id", untyped, asked(stored("{}", call_id=None), text=""))
    yield case("an empty list is no call", plain({"content": "hi", "tool_calls": []}), answered("hi"))

    streams = {
        "character by character": ([[fragment(c, index=0, **({"id": "a", "name": "f"} if not n else {}))]
                                    for n, c in enumerate(odd)], [stored(odd)]),
        "empty id and type go on": ([[fragment("{", index=0, id="a", type="function", name="f")],
                                     [fragment("}", index=0, id="", type="", name="")]], [stored("{}")]),
        "two interleaved": ([[fragment("", index=0, id="a", name="f"), fragment("", index=1, id="b", name="g")],
                             [fragment('{"x"', index=1)], [fragment("{", index=0)], [fragment(":1}", index=1)],
                             [fragment("}", index=0)]], [stored("{}"), stored('{"x":1}', name="g", call_id="b")]),
        "second index first": ([[fragment("{}", index=1, id="b", name="g")],
                                [fragment("[]", index=0, id="a", name="f")]],
                               [stored("[]"), stored("{}", name="g", call_id="b")]),
        "two in one delta, no index": ([[fragment("{}", id="a", name="f"), fragment("[]", id="b", name="g")]],
                                       [stored("{}"), stored("[]", name="g", call_id="b")]),
        "index null": ([[fragment("{", index=None, id="a", name="f")], [fragment("}", index=None)]], [stored("{}")]),
    }  # fmt: skip
    for title, (deltas, found) in streams.items():
        body = events(*(chunk({"tool_calls": delta}) for delta in deltas), chunk({}, "tool_calls"))
        yield case(title, stream(body, chunk_bytes=17), asked(*found))


def texts() -> Iterator[Case]:
    """Texts byte for byte, and bodies that are hardly JSON."""
    for text in (
        "\n  \n",
        "\x00 NUL",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "é vs e\u0301",
        "a\r\nb\rc",
        "<b>&amp;</b>",
        "data: x\n\n",
    ):
        yield case(f"whole {text!r}", plain({"content": text}), answered(text))
        yield case(f"streamed {text!r}", stream(events(chunk({"content": text}), chunk({}, "stop"))), answered(text))
    pair = 'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}\n\n'
    yield case("a pair split over two deltas", stream(pair % ("\\ud83d", "null") + pair % ("\\ude00", '"stop"')),
               answered("\U0001f600"))  # fmt: skip
    yield case("half a pair", stream(pair % ("a\\ude00b", '"stop"')), answered("a\ufffdb"))
    body = json.dumps(plain({"content": "hi"})["body_json"]).encode()
    for title, raw in [("a byte order mark", b"\xef\xbb\xbf" + body), ("blank lines first", b"\n\n \r\n" + body),
                       ("blank lines behind", body + b"\n\n")]:  # fmt: skip
        yield case(title, stream(raw) | {"headers": JSON}, answered("hi"))
    yield case("bytes that are no UTF-8", stream(body.replace(b"hi", b"h\xffi")) | {"headers": JSON},
               answered("h\ufffdi"))  # fmt: skip
    for encoding, raw in (("gzip", gzip.compress(body, mtime=0)), ("deflate", zlib.compress(body)),
                          ("identity", body)):  # fmt: skip
        headers = JSON | {"Content-Encoding": encoding}
        yield case(f"{encoding} by the byte", stream(raw, chunk_bytes=1) | {"headers": headers}, answered("hi"))
    for end in ("cut", "close"):
        yield case(
            f"JSON broken off, {end}", stream(body[:40], end=end) | {"headers": JSON}, failed("truncated", "yes")
        )
    for title, raw in [
        ("a list", b"[]"),
        ("a text", b'"hi"'),
        ("null", b"null"),
        ("a number", b"7"),
        ("prose", b"Hi!"),
    ]:
        yield case(f"the body is {title}", stream(raw) | {"headers": JSON}, failed("malformed", "yes"))
    yield case("an empty body", stream(b"") | {"headers": JSON}, failed("empty", "yes"))
    parts = plain({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    yield case("parts, whole", parts, answered("ab"))
    thought = plain({"content": "42", "reasoning": "think"})
    yield case("reasoning under its other name", thought, answered("42", reasoning="think"))
    refused = plain({"content": None, "refusal": "I cannot."})
    yield case("a refusal, whole", refused, answered(None, refusal="I cannot."))


def lines() -> Iterator[Case]:
    """Connections that are none."""
    nothing = {"status": 0, "headers": {}, "body": ""}
    yield case("nobody listens", {**nothing, "end": "refused", "pause_ms": 500}, failed("connection", "yes"))
    for title, raw in [("no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"), ("half a head", "HTTP/1.1 200 OK\r\nContent-Ty"),
                       ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi")]:  # fmt: skip
        yield case(title, {**nothing, "end": "raw", "raw": raw}, failed("connection", "yes"))
    for title, reply in [("silence behind half a stream", stream(events(chunk({"content": "x"}), end=""), end="hang")),
                         ("silence behind half a body", stream(b'{"choices"', end="hang") | {"headers": JSON}),
                         ("blanks for ever", stream(b"\n", end="drip_forever", pause_ms=300) | {"headers": JSON}),
                         ]:  # fmt: skip
        yield case(title, reply, failed("timeout", "yes"))
    for provider in PROVIDERS:
        early = {"status": 401, "headers": {"Connection": "close"}, "body": "", "end": "early"}
        yield case(f"{provider}: refused before the upload ends", early, failed("auth", "abort"), provider=provider)


def main() -> None:
    groups = {"XR": refusals, "XW": words, "XH": hints, "XS": splits, "XU": usages, "XC": calls, "XT": texts,
              "XL": lines, "XV": servers, "XO": oddities}  # fmt: skip
    made = [{"id": f"{name}{n:02}", **each} for name, group in groups.items() for n, each in enumerate(group(), 1)]
    text = "".join(json.dumps(each) + "\n" for each in made)
    Path(__file__).with_name("own_cases.jsonl").write_text(text)
    print(f"{len(made)} cases")


if __name__ == "__main__":
    main()
