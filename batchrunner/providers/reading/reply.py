"""From a reply to a completion."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from batchrunner.providers.reading import stream
from batchrunner.providers.reading.refusal import refusal
from batchrunner.providers.reading.text import dump_json, message, parse_json, storable, text_or_none, unreadable
from batchrunner.providers.reading.usage import read_usage, reported
from batchrunner.records import Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.errors import ErrorType, RequestError
    from batchrunner.records import Reply

_REPLACED = "\ufffd"


def read(reply: Reply, *, max_wait_s: float, signs_in_by_403: bool = False) -> Completion:
    """The completion in a reply of any compatible server. Raises RequestError when there is none."""
    try:
        if reply.status == 200 and reply.events is None:
            return _plain(reply, max_wait_s=max_wait_s)
        if reply.status == 200:
            return _streamed(reply, max_wait_s=max_wait_s)
    except (ValueError, RecursionError, OverflowError) as error:
        raise unreadable(f"reply cannot be read: {message(str(error))}") from None
    raise _refused(reply, max_wait_s=max_wait_s, signs_in_by_403=signs_in_by_403)


def _refused(reply: Reply, *, max_wait_s: float, signs_in_by_403: bool) -> RequestError:
    raw = reply.body.decode("utf-8", "replace") if reply.events is None else "\n".join(e.data for e in reply.events)
    try:
        body = parse_json(raw)
    except ValueError:
        body = None
    return refusal(
        body,
        raw,
        status=reply.status,
        headers=reply.headers,
        max_wait_s=max_wait_s,
        signs_in_by_403=signs_in_by_403,
    )


def _failed(body: Mapping[str, Any], reply: Reply, max_wait_s: float) -> RequestError:
    """An error inside a 200: the provider may have billed what came before it."""
    usage = read_usage(reported(body))
    error = refusal(body, "", status=200, headers=reply.headers, max_wait_s=max_wait_s)
    error.went_out = True
    error.prompt_tokens, error.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    return error


def _plain(reply: Reply, *, max_wait_s: float) -> Completion:
    if not reply.body.strip():
        raise unreadable("reply was cut before its body" if reply.cut else "empty reply", _cut_or(reply, "empty"))
    try:
        body = parse_json(reply.body)
    except ValueError as error:
        raise _no_json(reply, str(error)) from None
    if not isinstance(body, dict):
        raise unreadable(f"expected a JSON object, got {message(reply.body[:200].decode('utf-8', 'replace'))!r}")
    if body.get("error"):
        raise _failed(body, reply, max_wait_s)
    return _completion(body, reply)


def _no_json(reply: Reply, why: str) -> RequestError:
    start = message(reply.body[:2_000].decode("utf-8", "replace"))[:200]
    if reply.cut or reply.body.lstrip()[:1] in (b"{", b"["):
        kind = _cut_or(reply, "truncated" if _ends_early(reply.body) else "malformed")
        return unreadable(
            f"reply was cut: {start!r}" if kind == "truncated" else f"no valid JSON ({why}): {start!r}", kind
        )
    return unreadable(f"expected JSON, got {start!r}; see that provider.base_url is right")


def _ends_early(body: bytes) -> bool:
    """JSON that stops in the middle, rather than JSON that goes wrong there."""
    return not body.rstrip().endswith((b"}", b"]"))


def _cut_or(reply: Reply, otherwise: ErrorType) -> ErrorType:
    return "truncated" if reply.cut else otherwise


def _completion(body: Mapping[str, Any], reply: Reply) -> Completion:
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise unreadable(_odd_shape(body))
    if not choices:
        raise _empty(body, "no choices")
    choices = sorted(choices, key=_index)
    messages = [_message(choice) for choice in choices]
    for choice in choices:
        if choice.get("finish_reason") == "error" or choice.get("error"):
            raise _failed({**body, "error": choice.get("error") or {"message": "finish_reason error"}}, reply, 300.0)
    return _of_messages(body, choices, messages, reply)


def _of_messages(
    body: Mapping[str, Any], choices: list[dict[str, Any]], messages: list[dict[str, Any]], reply: Reply
) -> Completion:
    first, finish = messages[0], text_or_none(choices[0].get("finish_reason"))
    text, calls = _text(first.get("content")), _tool_calls(first)
    refused = text_or_none(first.get("refusal"))
    if not text and not calls and not refused and finish in (None, "error"):
        raise _empty(body, "no content")
    raw = reply.body.decode("utf-8", "replace")
    warnings = ("invalid_utf8",) if _REPLACED in raw and _REPLACED.encode() not in reply.body else ()
    return Completion(
        text=text,
        finish_reason=finish,
        reasoning=text_or_none(first.get("reasoning_content")) or text_or_none(first.get("reasoning")),
        refusal=refused,
        tool_calls=dump_json(calls) if calls else None,
        choices=dump_json(messages) if len(messages) > 1 else None,
        model=text_or_none(body.get("model")) or None,
        response_id=text_or_none(body.get("id")) or None,
        session_id=text_or_none(body.get("session_id")) or None,
        usage=read_usage(reported(body)),
        response=storable(raw.lstrip("\ufeff")),
        warnings=warnings,
    )


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    found = choice.get("message")
    if found is None and isinstance(choice.get("text"), str):
        return {"role": "assistant", "content": choice["text"]}
    if not isinstance(found, dict):
        raise unreadable(f"expected choices[].message to be an object, got {type(found).__name__}")
    return found


def _text(content: Any) -> str | None:
    """A text, or the texts of a list of parts."""
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        ]
        return storable("".join(part for part in parts if isinstance(part, str)))
    return text_or_none(content)


def _tool_calls(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tool calls in today's form; the arguments stay the text that was sent."""
    calls = found.get("tool_calls")
    legacy = found.get("function_call")
    listed = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    if not listed and isinstance(legacy, dict):
        listed = [{"id": None, "function": legacy}]
    return [tool_call(call.get("id"), call.get("type"), call.get("function")) for call in listed]


def tool_call(call_id: Any, kind: Any, function: Any) -> dict[str, Any]:
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = dump_json(arguments)
    return {
        "id": text_or_none(call_id),
        "type": text_or_none(kind) or "function",
        "function": {"name": text_or_none(function.get("name")), "arguments": text_or_none(arguments) or ""},
    }


def _empty(body: Mapping[str, Any], what: str) -> RequestError:
    usage = read_usage(reported(body))
    error = unreadable(f"{what} in the reply", "empty")
    error.prompt_tokens, error.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    return error


def _odd_shape(body: Mapping[str, Any]) -> str:
    if "output" in body and "status" in body:
        return "a reply of Tess's native endpoint, not of /openai/chat/completions; correct provider.base_url"
    found = ", ".join(sorted(map(str, body))[:8])
    return message(f"expected choices to be a list of objects (found: {found})")


def _streamed(reply: Reply, *, max_wait_s: float) -> Completion:
    joined = stream.join(reply.events or ())
    if joined.error is not None:
        raise _failed({**joined.error, "usage": joined.usage}, reply, max_wait_s)
    if joined.unreadable is not None:
        raise unreadable(_odd_chunk(joined), "truncated" if reply.cut and joined.last_unreadable else "malformed")
    if not joined.choices:
        if reply.cut:
            raise unreadable("the stream was cut before any content", "truncated")
        raise _empty({"usage": joined.usage}, "no content in the stream; no choices")
    if not reply.done and not joined.finished:
        error = unreadable(
            f"the stream ended without [DONE] and without a finish_reason ({reply.cut or 'clean end'})", "truncated"
        )
        error.prompt_tokens = read_usage(joined.usage).prompt_tokens
        error.completion_tokens = read_usage(joined.usage).completion_tokens
        raise error
    body = joined.as_body()
    text = dump_json(body)
    warnings = ("invalid_utf8",) if _REPLACED in text else ()
    return dataclasses.replace(_completion(body, reply), response=text, warnings=warnings)


def _odd_chunk(joined: stream.Joined) -> str:
    if joined.native:
        return "a stream of Tess's native endpoint, not of /openai/chat/completions; correct provider.base_url"
    return f"a chunk of the stream cannot be read: {message(joined.unreadable or '')[:200]!r}"
