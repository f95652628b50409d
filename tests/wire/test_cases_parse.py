"""Every conformance case that needs no socket: replies read, requests built."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from batchrunner import providers
from batchrunner.errors import BadRow, JobError, RequestError
from batchrunner.records import Endpoint, Reply
from batchrunner.transport.sse import SSEDecoder

CASES = [json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text().splitlines()]
NOT_PURE = {
    "C32": "drips for ever: the runner's own clocks",
    "H06": "gzip is taken off by the transport",
    "H07": "gzip is taken off by the transport",
    "H08": "gzip is taken off by the transport",
    "H09": "gzip is taken off by the transport",
    "H14": "a reset connection gives no reply",
    "H15": "a closed connection gives no reply",
    "H23": "decoded bytes are capped by the transport",
    "H27": "an illegal head gives no reply",
    "H29": "silence: the runner's own clocks",
    "P29": "Accept-Encoding is said by the transport",
}
"""Cases of groups A to H and P that this file does not run, and why; those of group M are whole runs."""
PURE = [case for case in CASES if case["id"][0] != "M" and case["id"] not in NOT_PURE]
READ = [case for case in PURE if "reply" in case]
BUILT = [case for case in PURE if case["id"][0] == "P"]
NOON = "Fri, 20 Nov 2026 18:00:00 GMT"
VERDICTS = {"no": "reject", "yes": "retry", "defer": "defer", "abort": "abort"}
EQUALLY_RIGHT = {"C14": {"truncated", "malformed"}}
NEEDED = {"openai": {"model": "m"}, "opentools": {"model": "m"}, "tess": {"agent_id": 8794}}
"""What a row must give, where the case is about something else."""
FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")


def body_of(reply: dict[str, Any]) -> bytes:
    if "body_json" in reply:
        return json.dumps(reply["body_json"], ensure_ascii=False, separators=(",", ":")).encode()
    if "body_b64" in reply:
        return base64.b64decode(reply["body_b64"])
    if gen := reply.get("body_gen"):
        return (gen["prefix"] + gen["unit"] * gen["count"] + gen["suffix"]).encode()
    return reply.get("body", "").encode()


def reply_of(told: dict[str, Any]) -> Reply:
    """The reply as the transport would hand it over."""
    raw = body_of(told)
    headers = {"date": NOON} | {name.lower(): value for name, value in told.get("headers", {}).items()}
    cut = "closed early" if told.get("end") == "cut" else None
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
    labelled = "event-stream" in headers.get("content-type", "") and start[:1] not in (b"{", b"[")
    if not labelled and not start.startswith(FIELDS):
        return Reply(status=told["status"], headers=headers, body=raw, cut=cut)
    decoder = SSEDecoder()
    events = (*decoder.feed(raw), *decoder.close())
    return Reply(status=told["status"], headers=headers, events=events, done=decoder.done, cut=cut)


def provider_of(case: dict[str, Any]) -> Any:
    return providers.load(case.get("provider", "openai"))


def by_result(result: str) -> pytest.MarkDecorator:
    cases = [case for case in READ if case["expect"]["status"] == result]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@by_result("ok")
def test_an_answer_is_read_as_it_was_meant(case):
    expect = case["expect"]

    found = provider_of(case).parse(reply_of(case["reply"]))

    usage = [found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens]
    text = expect["text"]
    assert found.text == (text["unit"] * text["count"] if isinstance(text, dict) else text)
    assert found.finish_reason == expect["finish_reason"]
    assert usage == (expect["usage"] or [None, None, None])
    assert json.loads(found.tool_calls or "null") == expect.get("tool_calls")
    assert found.reasoning == expect.get("reasoning")
    assert found.refusal == expect.get("refusal")
    if "n_texts" in expect:
        assert [message["content"] for message in json.loads(found.choices or "[]")] == expect["n_texts"]


@by_result("error")
def test_a_failure_is_read_as_it_was_meant(case):
    expect = case["expect"]

    with pytest.raises(RequestError) as raised:
        provider_of(case).parse(reply_of(case["reply"]))

    error = raised.value
    assert error.error_type in EQUALLY_RIGHT.get(case["id"], {expect["error_type"]}), str(error)
    assert error.verdict == VERDICTS[expect["retry"]], str(error)
    if expect["retry"] == "yes":
        assert error.wait_s == (None if expect["wait"] == "backoff" else pytest.approx(expect["wait"], abs=0.01))
    assert error.went_out == (case["reply"]["status"] == 200)
    assert len(str(error)) <= 2_000
    assert "sk-" not in str(error)


@pytest.mark.parametrize(
    ("case_id", "words"),
    [
        ("C33", "native endpoint"),
        ("F01", "temperature: The selected temperature is invalid"),
        ("F08", "automation"),
        ("F18", "provider.base_url"),
        ("F23", "body.messages: Field required"),
        ("F24", "body.tools.0: Input should be a valid list"),
        ("F26", "provider.workspace_id"),
        ("F37", "502 Bad Gateway"),
        ("H31", "evil.example.test"),
    ],
)
def test_a_message_says_what_helps(case_id, words):
    case = next(case for case in CASES if case["id"] == case_id)

    with pytest.raises(RequestError, match=words) as raised:
        provider_of(case).parse(reply_of(case["reply"]))

    assert "<" not in str(raised.value)
    assert "no-tools" not in str(raised.value)


def asks_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """One ask for each of the case's variants."""
    row = case["row"]
    params = json.loads(row["params_raw"]) if "params_raw" in row else row.get("params")
    base = {"messages": [{"role": "user", "content": "hi"}], **NEEDED.get(case.get("provider", "openai"), {})}
    base |= {name: row[name] for name in ("messages", "agent_id", "session_id", "model", "extra") if name in row}
    return [base | (variant or {}) for variant in _each(params)]


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def by_preflight(refused: bool) -> pytest.MarkDecorator:
    cases = [case for case in BUILT if case.get("preflight", False) is refused]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@by_preflight(True)
def test_what_cannot_be_asked_is_refused_before_it_costs_anything(case):
    provider = provider_of(case)
    endpoint = Endpoint(base_url=str(provider.base_url))

    for ask in asks_of(case):
        for key in _each(case["row"].get("api_key", "KEY")):
            with pytest.raises((BadRow, JobError)) as refused:
                _prepare(provider, endpoint, key, ask)
            assert key == "KEY" or key not in str(refused.value)


def _prepare(provider: Any, endpoint: Endpoint, key: str | None, ask: dict[str, Any]) -> None:
    provider.headers(key, endpoint)
    provider.build(ask, endpoint)


@by_preflight(False)
def test_a_request_is_built_as_it_was_meant(case):
    provider, row, sent = provider_of(case), case["row"], case["sent"]
    has = _each(sent.get("body_has", {}))
    for base_url in _each(row.get("base_url", provider.base_url)):
        options = {name: row[name] for name in ("deployment", "api_version") if name in row}
        endpoint = Endpoint(base_url=provider.normalise(base_url), options=options)
        for number, ask in enumerate(asks_of(case)):
            headers, request = provider.headers(row.get("api_key", "KEY"), endpoint), provider.build(ask, endpoint)

            body = json.loads(request.body)
            headers["accept"] = "text/event-stream" if request.stream else "application/json"
            assert endpoint.base_url + request.path == sent.get("url", endpoint.base_url + request.path)
            assert headers.items() >= sent.get("headers", {}).items()
            assert body.items() >= has[min(number, len(has) - 1)].items()
            assert not set(sent.get("headers_lack", [])) & set(headers)
            assert not set(sent.get("body_lacks", [])) & set(body)


def test_every_case_is_run_or_named():
    assert set(NOT_PURE) <= {case["id"] for case in CASES}
    assert len(READ) + len(BUILT) + len(NOT_PURE) == len([case for case in CASES if case["id"][0] != "M"])
