"""OpenAI's Batch files: what was asked, what was answered, what failed.

The lines are those of https://platform.openai.com/docs/guides/batch: an input line can be run again, here or there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

FILES = ("input.jsonl", "output.jsonl", "errors.jsonl")


def write_folder(batches: Iterable[pa.RecordBatch], asked: Iterable[tuple[int, str, str]], folder: Path) -> int:
    """Write the three files, each whole; returns how many rows there were.

    `asked` has the rows in the same order as the batches, and may have more: the row, the path and the body.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = [folder / f".{name}.partial" for name in FILES]
    try:
        with beside[0].open("wb") as input_, beside[1].open("wb") as output, beside[2].open("wb") as errors:
            rows = _write(batches, iter(asked), input_, output, errors)
            for file in (input_, output, errors):
                file.flush()
                os.fsync(file.fileno())
        for path, name in zip(beside, FILES, strict=True):
            path.replace(folder / name)
    finally:
        for path in beside:
            path.unlink(missing_ok=True)
    return rows


def _write(
    batches: Iterable[pa.RecordBatch],
    asked: Iterator[tuple[int, str, str]],
    input_: BinaryIO,
    output: BinaryIO,
    errors: BinaryIO,
) -> int:
    rows, coming = 0, next(asked, None)
    for batch in batches:
        for fields in batch.to_pylist():
            rows += 1
            while coming is not None and coming[0] < fields["row"]:
                coming = next(asked, None)
            if coming is not None and coming[0] == fields["row"]:  # A row that cannot be asked is not among them.
                input_.write(_line(_input(fields["item_id"], *coming[1:])))
            if fields["status"] == "succeeded":
                output.write(_line(_answered(fields)))
            elif fields["status"] is not None:
                errors.write(_line(_failed(fields)))
    return rows


def _line(found: dict[str, Any]) -> bytes:
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


def _input(item_id: str, path: str, body: str) -> dict[str, Any]:
    return {"custom_id": item_id, "method": "POST", "url": path, "body": orjson.Fragment(body)}


def _answered(fields: dict[str, Any]) -> dict[str, Any]:
    response = {
        "status_code": fields["http_status"] or 200,
        "request_id": fields["response_id"] or "",
        "body": _body(fields),
    }
    return {"id": f"batch_req_{fields['row']}", "custom_id": fields["item_id"], "response": response, "error": None}


def _failed(fields: dict[str, Any]) -> dict[str, Any]:
    error = {"code": fields["error_type"], "message": fields["error"]}
    response = None
    if fields["http_status"] is not None:
        response = {
            "status_code": fields["http_status"],
            "request_id": fields["response_id"] or "",
            "body": {"error": error},
        }
    return {"id": f"batch_req_{fields['row']}", "custom_id": fields["item_id"], "response": response, "error": error}


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    """The reply as it came, with what a completion must have and this one lacks; of the columns where none is kept."""
    reply = orjson.loads(fields["response"]) if fields["response"] else {}
    found = reply if isinstance(reply, dict) else {}
    if not isinstance(found.get("choices"), list):
        found["choices"] = [_choice(fields)]
    if found.get("usage") is None and fields["total_tokens"] is not None:
        found["usage"] = {name: fields[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return {
        "id": fields["response_id"] or f"chatcmpl-{fields['request_key']}",
        "object": "chat.completion",
        "created": int(fields["finished_at"].timestamp()) if fields["finished_at"] else 0,
        "model": fields["model"] or "",
        **{name: value for name, value in found.items() if value is not None},
    }


def _choice(fields: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": fields["text"], "refusal": fields["refusal"]}
    if fields["tool_calls"]:
        message["tool_calls"] = orjson.loads(fields["tool_calls"])
    return {"index": 0, "message": message, "finish_reason": fields["finish_reason"] or "stop", "logprobs": None}
