"""What each of the servers that look like OpenAI's does otherwise: WIRE section 5, line by line, by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from case_forms import JSON, SSE, answered, case, chunk, events, failed, plain, stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from case_forms import Case

PAGE = {"Content-Type": "text/html; charset=UTF-8", "Server": "cloudflare", "CF-RAY": "8c135d3e-SYD"}
CLOSE: Case = {"status": 0, "headers": {}, "body": "", "end": "no_reply"}


def refused(status: int, body: Any, **headers: str) -> Case:
    named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return {"status": status, "headers": named, "body_json": body}


def error(message: str, **more: Any) -> Case:
    return {"error": {"message": message, **more}}


def servers() -> Iterator[Case]:
    for server in (azure, openrouter, vllm, llama_cpp, ollama, groq, together, deepseek, litellm, cloudflare):
        yield from server()


def azure() -> Iterator[Case]:
    clean = {"hate": {"filtered": False, "severity": "safe"}}
    prompt = {"id": "", "object": "", "created": 0, "model": "", "choices": [],
              "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": clean}]}  # fmt: skip
    later = {"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]}
    body = events(prompt, chunk({"content": "hi"}), chunk({}, "stop"), later)
    yield case("Azure: filter results first and last", stream(body), answered("hi"), provider="azure")
    filtered = error("The response was filtered", type=None, param="prompt", code="content_filter", status=400,
                     innererror={"code": "ResponsibleAIPolicyViolation"})  # fmt: skip
    yield case("Azure: the prompt is filtered", refused(400, filtered), failed("content_filter", "no"),
               provider="azure")  # fmt: skip
    inner = error("The response was filtered", code=None, innererror={"code": "ResponsibleAIPolicyViolation"})
    yield case("Azure: only the inner code says so", refused(400, inner), failed("content_filter", "no"),
               provider="azure")  # fmt: skip
    busy = error("Requests have exceeded the call rate limit", code="429")
    yield case("Azure: 429 as a text", refused(429, busy, Retry_After="26"), failed("rate_limit", "yes", 26.0),
               provider="azure")  # fmt: skip
    yield case("Azure: milliseconds", refused(429, busy, retry_after_ms="2600", Retry_After="3"),
               failed("rate_limit", "yes", 2.6), provider="azure")  # fmt: skip
    cut = plain({"content": "Once upo"}, finish_reason="content_filter")
    yield case("Azure: the answer is filtered", cut, answered("Once upo", finish_reason="content_filter"),
               provider="azure")  # fmt: skip
    for status in (401, 403):
        denied = refused(status, error("Access denied due to invalid subscription key.", code=str(status)))
        yield case(f"Azure: {status}", denied, failed("auth", "abort") if status == 401 else failed("permission", "no"),
                   provider="azure")  # fmt: skip


def openrouter() -> Iterator[Case]:
    comment = ": OPENROUTER PROCESSING\n\n"
    good = comment * 3 + events(chunk({"content": "hi"}), end=comment) + events(chunk({}, "stop"))
    yield case("OpenRouter: comments between chunks", stream(good), answered("hi"))
    for code, error_type, retry in ((429, "rate_limit", "yes"), (502, "server", "yes"), (503, "overloaded", "yes"),
                                    (408, "timeout", "yes"), (400, "bad_request", "no"), (402, "billing", "abort"),
                                    (403, "permission", "no")):  # fmt: skip
        told = {"error": {"code": code, "message": "Provider returned error"}, "user_id": "u"}
        yield case(f"OpenRouter: {code} inside a 200", refused(200, told), failed(error_type, retry))
        ended = {"id": "gen-1", **told, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
        body = comment + events(chunk({"content": "Once"}), ended)
        yield case(f"OpenRouter: {code} inside a stream", stream(body), failed(error_type, retry))
    credits_ = {"error": {"code": 402, "message": "Insufficient credits"}}
    yield case("OpenRouter: no credits", refused(402, credits_), failed("billing", "abort"))
    held = {"error": {"code": 402, "message": "In flight", "metadata": {"limit_source": "openrouter_in_flight_budget"}}}
    for name, told_s, wait in (("Retry-After", "5", 5.0), ("retry-after-ms", "1500", 1.5)):
        reply = {"status": 402, "headers": JSON | {name: told_s}, "body_json": held}
        yield case(f"OpenRouter: 402 with {name}", reply, failed("rate_limit", "yes", wait))
    yield case("OpenRouter: 402, come back tomorrow", refused(402, held, Retry_After="86400"),
               failed("rate_limit", "defer"))  # fmt: skip
    for status, kind in ((429, "rate_limit"), (503, "overloaded")):
        yield case(f"OpenRouter: {status} with Retry-After",
                   refused(status, {"error": {"code": status, "message": "busy"}}, Retry_After="4"),
                   failed(kind, "yes", 4.0))  # fmt: skip
    flagged = {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"flagged_input": "a prompt"}}}
    yield case("OpenRouter: flagged", refused(403, flagged), failed("permission", "no"))
    cold = events(chunk({"role": "assistant", "content": ""}))
    yield case("OpenRouter: a cold start that says nothing, streamed", stream(comment + cold), failed("empty", "yes"))
    yield case("OpenRouter: a cold start that says nothing, whole", plain({"content": ""}, finish_reason=None),
               failed("empty", "yes"))  # fmt: skip


def vllm() -> Iterator[Case]:
    bare = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}
    yield case("vLLM: an error without a wrapper", refused(400, bare), failed("bad_request", "no"))
    yield case("vLLM: the same inside a 200", refused(200, bare), failed("bad_request", "no"))
    long = {**bare, "message": "This model's maximum context length is 10 tokens."}
    yield case("vLLM: context, without a wrapper", refused(400, long), failed("context_length", "no"))
    for title, told in (("wrapped", {"error": {**bare, "code": 500}}), ("bare", {**bare, "code": 500})):
        body = events(chunk({"content": "Once"}), told)
        yield case(f"vLLM: a {title} error, then [DONE]", stream(body), failed("server", "yes"))
    grown = [chunk({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n})
             for n in (1, 2, 3)]  # fmt: skip
    yield case("vLLM: usage on every chunk", stream(events(*grown, chunk({}, "stop"))),
               answered("aaa", usage=[9, 3, 12]))  # fmt: skip
    both = [{"choices": [{"index": i, "delta": {"content": text}, "finish_reason": reason}]}
            for i, text, reason in ((0, "A", None), (1, "B", None), (1, "b", "stop"), (0, "a", "length"))]  # fmt: skip
    total = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 8, "total_tokens": 12}}
    yield case("vLLM: usage of all choices", stream(events(*both, total)),
               answered("Aa", finish_reason="length", usage=[4, 8, 12], n_texts=["Aa", "Bb"]))  # fmt: skip
    told_all = "[{'type': 'missing', 'loc': ('body', 'model'), 'msg': 'Field required', 'input': {'messages': 'x'}}]"
    listed = {"object": "error", "message": told_all, "type": "BadRequestError", "code": 400}
    yield case("vLLM: a list of faults as text", refused(400, listed), failed("bad_request", "no"))
    stop = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop", "stop_reason": 128009}]}
    yield case("vLLM: a stop_reason beside", stream(events(stop)), answered("hi"))


def llama_cpp() -> Iterator[Case]:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    yield case("llama.cpp: loading", refused(503, loading), failed("overloaded", "yes"))
    full = {"code": 400, "message": "the request exceeds the available context size", "n_ctx": 8192,
            "type": "exceed_context_size_error", "n_prompt_tokens": 9001}  # fmt: skip
    yield case("llama.cpp: context", refused(400, {"error": full}), failed("context_length", "no"))
    yield case("llama.cpp: context inside a stream", stream(events({"error": full}, end="")),
               failed("context_length", "no"))  # fmt: skip
    for title, body, expect in (
        ("a field named error", f"error: {json.dumps(full)}\n\n", failed("context_length", "no")),
        ("the same, no blank line", f"error: {json.dumps(loading['error'])}", failed("overloaded", "yes")),
        ("the same behind text", events(chunk({"content": "x"}), end="error: oh\n\n"), failed("server", "yes")),
        ("the same, then [DONE]", "error: oh\n\ndata: [DONE]\n\n", failed("server", "yes")),
    ):
        yield case(f"llama.cpp: {title}", stream(body, chunk_bytes=5), expect)


def ollama() -> Iterator[Case]:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    thought = plain({"role": "assistant", "content": "42", "reasoning": "think"}, usage=zeros,
                    system_fingerprint="fp_ollama")  # fmt: skip
    yield case("Ollama: reasoning, and usage of zeros", thought, answered("42", reasoning="think", usage=[0, 0, 0]))
    body = events(chunk({"role": "assistant", "content": "", "reasoning": "thi"}), chunk({"reasoning": "nk"}),
                  chunk({"content": "42"}, "stop"))  # fmt: skip
    yield case("Ollama: reasoning, streamed", stream(body), answered("42", reasoning="think"))
    calls = [{"index": i, "id": f"call_{i}", "type": "function", "function": {"name": n, "arguments": '{"x":1}'}}
             for i, n in enumerate("fg")]  # fmt: skip
    kept = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    body = events(chunk({"content": "", "tool_calls": calls}, "tool_calls"))
    yield case("Ollama: all calls in one delta", stream(body),
               answered(None, finish_reason="tool_calls", tool_calls=kept))  # fmt: skip
    nullish = error("model 'x' not found", type="not_found_error", param=None, code=None)
    yield case("Ollama: no such model", refused(404, nullish), failed("not_found", "abort"))
    odd = error("model 'x' not found", type="api_error")
    yield case("Ollama: no such model, another type", refused(404, odd), failed("not_found", "abort"))
    native = {"error": "model requires more system memory"}
    yield case("Ollama: a native error", refused(500, native), failed("server", "yes"))
    whole = {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": True}
    yield case("Ollama: a native answer", refused(200, whole), failed("malformed", "yes"))
    lines = "".join(json.dumps({**whole, "done": done}) + "\n" for done in (False, True))
    ndjson = stream(lines) | {"headers": {"Content-Type": "application/x-ndjson"}}
    yield case("Ollama: a native stream", ndjson, failed("malformed", "yes"), stream=True)


def groq() -> Iterator[Case]:
    told = "Rate limit reached for model `m` on tokens per minute (TPM). Please try again in 5.289s."
    for kind in ("tokens", "requests"):
        limited = error(told, type=kind, code="rate_limit_exceeded")
        reset = {"x_ratelimit_reset_requests": "2m59.56s", "x_ratelimit_reset_tokens": "7.66s"}
        yield case(f"Groq: {kind}", refused(429, limited, retry_after="6", **reset), failed("rate_limit", "yes", 6.0))
    yield case("Groq: no capacity", refused(498, error("busy", type="capacity_exceeded")), failed("overloaded", "yes"))
    full = error("full", type="internal_server_error", code="capacity_exceeded")
    yield case("Groq: no capacity, as a code", refused(498, full), failed("overloaded", "yes"))
    large = error("Request too large for model", type="tokens", code="rate_limit_exceeded")
    yield case("Groq: too large for a minute", refused(413, large), failed("too_large", "no"))
    yield case("Groq: 422", refused(422, error("semantic", type="invalid_request_error")), failed("bad_request", "no"))
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10, "total_time": 0.02}
    first = chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1"})
    last = chunk({}, "stop", x_groq={"id": "req_1", "usage": usage})
    yield case("Groq: usage in x_groq", stream(events(first, chunk({"content": "hi"}), last)),
               answered("hi", usage=[8, 2, 10]))  # fmt: skip
    apart = {"choices": [], "x_groq": {"id": "req_1", "usage": usage}}
    yield case("Groq: usage in a chunk of its own", stream(events(chunk({"content": "hi"}, "stop"), apart)),
               answered("hi", usage=[8, 2, 10]))  # fmt: skip
    timed = chunk({}, "stop", usage={"total_time": 0.02}, x_groq={"id": "req_1", "usage": usage})
    yield case("Groq: times where usage is expected", stream(events(chunk({"content": "hi"}), timed)),
               answered("hi", usage=[8, 2, 10]))  # fmt: skip


def together() -> Iterator[Case]:
    busy = error("overloaded", type="server_error")
    yield case("Together: 503 below the dynamic rate", refused(503, busy), failed("overloaded", "yes"))
    fast = error("You have reached your rate limit", type="rate_limit", code="rate_limit")
    yield case("Together: 429 above it", refused(429, fast), failed("rate_limit", "yes"))
    shared = error("m", type="dynamic_request_limited")
    yield case("Together: 429 by the dynamic limit", refused(429, shared), failed("rate_limit", "yes"))


def deepseek() -> Iterator[Case]:
    blank = json.dumps(plain({"content": "42", "reasoning_content": "think"})["body_json"])
    whole = stream("\n\n\n\n" + blank, chunk_bytes=2) | {"headers": JSON}
    yield case("DeepSeek: blank lines before the JSON", whole, answered("42", reasoning="think"))
    waiting = ": keep-alive\n\n"
    body = waiting * 2 + events(chunk({"content": None, "reasoning_content": "thi"}),
                                chunk({"content": None, "reasoning_content": "nk"}), end=waiting)  # fmt: skip
    body += events(chunk({"content": "42", "reasoning_content": None}, "stop"))
    yield case("DeepSeek: keep-alive comments", stream(body), answered("42", reasoning="think"))
    for title, raw in (("blank lines", "\n\n\n"), ("comments", waiting * 3)):
        headers = JSON if title == "blank lines" else SSE
        closed = stream(raw, end="close") | {"headers": headers}
        yield case(f"DeepSeek: closed after {title}", closed, failed("empty", "yes"))
    yield case("DeepSeek: closed before the head", CLOSE, failed("connection", "yes"))
    poor = error("Insufficient Balance", type="unknown_error", param=None, code="invalid_request_error")
    yield case("DeepSeek: no balance", refused(402, poor), failed("billing", "abort"))
    short = plain({"content": ""}, finish_reason="insufficient_system_resource")
    yield case("DeepSeek: a finish_reason of its own", short,
               answered("", finish_reason="insufficient_system_resource"))  # fmt: skip


def litellm() -> Iterator[Case]:
    upstream = 'litellm.RateLimitError: OpenAIException - {"error":{"message":"slow down"}}'
    paced = error(upstream, type="throttling_error", param=None, code="429")
    yield case("LiteLLM: 429 as a text", refused(429, paced), failed("rate_limit", "yes"))
    yield case("LiteLLM: the upstream's 429 in a 500", refused(500, paced), failed("rate_limit", "yes"))
    yield case("LiteLLM: the same inside a stream", stream(events(chunk({"content": "x"}), paced)),
               failed("rate_limit", "yes"))  # fmt: skip
    for status in (400, 429):
        spent = error("Budget has been exceeded!", type="budget_exceeded", param=None, code=str(status))
        yield case(f"LiteLLM: budget, {status}", refused(status, spent), failed("billing", "abort"))
    denied = error("key not allowed to access model", type="key_model_access_denied", param="model", code="401")
    yield case("LiteLLM: the key may not use the model", refused(401, denied), failed("auth", "abort"))
    full = error("litellm.ContextWindowExceededError: prompt is too long", code="400")
    yield case("LiteLLM: context", refused(400, full), failed("context_length", "no"))
    filtered = error("litellm.ContentPolicyViolationError", code="content_policy_violation")
    yield case("LiteLLM: policy", refused(400, filtered), failed("content_filter", "no"))
    reset = refused(429, paced, x_ratelimit_reset_requests="12", Retry_After="2")
    yield case("LiteLLM: a reset that is a number", reset, failed("rate_limit", "yes", 2.0))


def cloudflare() -> Iterator[Case]:
    for status in (*range(520, 528), 530):
        page: Case = {"status": status, "headers": PAGE, "body": f"<!DOCTYPE html><title>{status}: error</title>"}
        yield case(f"Cloudflare: {status}", page, failed("server", "yes"))
    challenge: Case = {"status": 403, "headers": PAGE, "body": "<!DOCTYPE html><title>Just a moment...</title>"}
    yield case("Cloudflare: a challenge", challenge, failed("permission", "no"))
    limited: Case = {"status": 429, "headers": PAGE | {"Retry-After": "10"}, "body": "error code: 1015"}
    yield case("Cloudflare: rate limited", limited, failed("rate_limit", "yes", 10.0))
