"""The forms that own cases are written in: replies by their parts, and what is expected of them."""

from __future__ import annotations

import base64
import json
from typing import Any

Case = dict[str, Any]

JSON = {"Content-Type": "application/json"}
SSE = {"Content-Type": "text/event-stream"}


def failed(error_type: str, retry: str, wait: float | str = "backoff") -> Case:
    found: Case = {"status": "error", "error_type": error_type, "retry": retry}
    return {**found, "wait": wait} if retry == "yes" else found


def answered(text: str | None, *, finish_reason: str | None = "stop", usage: Any = None, **more: Any) -> Case:
    told = {"text": text, "finish_reason": finish_reason, "usage": usage, "retry": "no"}
    return {"status": "ok", **told, **more}


def plain(message: Any, *, finish_reason: str | None = "stop", **more: Any) -> Case:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"status": 200, "headers": JSON, "body_json": {"id": "c1", "choices": [choice], **more}}


def chunk(delta: Any, finish_reason: str | None = None, **more: Any) -> Case:
    return {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


def events(*chunks: Any, end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(each, ensure_ascii=False)}\n\n" for each in chunks) + end


def stream(body: str | bytes, **more: Any) -> Case:
    raw = body.encode() if isinstance(body, str) else body
    return {"status": 200, "headers": SSE, "body_b64": base64.b64encode(raw).decode(), **more}


def case(title: str, reply: Case, expect: Case, **more: Any) -> Case:
    streamed = {"stream": True} if reply["headers"].get("Content-Type") == SSE["Content-Type"] else {}
    return {"title": title, **streamed, **more, "reply": reply, "expect": expect}
