"""Rows that are requests: their own columns, or a line of an OpenAI batch file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from batchrunner.errors import BadRow
from batchrunner.spec import QUESTIONS, ROW_FIELDS, has_question
from batchrunner.templates._asks import from_json, kind_of, session_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_IDS = frozenset({"id", "custom_id"})
_BATCH_LINE = frozenset({"method", "url", "body"})
_QUESTIONS = frozenset(QUESTIONS)
_BODY_FIELDS = ROW_FIELDS - {"conversation", "extra", "turns"}
"""What a batch line's body says in our words; anything else there is a field of its API's own."""
_JSON_FIELDS = frozenset({
    "audio", "extra", "functions", "logit_bias", "messages", "metadata", "modalities", "prediction",
    "response_format", "stream_options", "turns", "web_search_options",
})  # fmt: skip
"""Fields that are no text: where a column holds text, it is their JSON."""
_MAYBE_JSON_FIELDS = frozenset({"function_call", "stop", "tool_choice", "tools"})
"""Fields that may be a text of their own: `no-tools`, `auto`."""
_URL_END = "/chat/completions"
_URL_AGENT = re.compile(r"/agents/([^/?#]+)/openai/chat/completions")
_SHOWN_NAMES = 10


def apart_from_results(columns: Collection[str]) -> frozenset[str]:
    """The columns that are part of a request, and so not carried."""
    is_batch = "body" in columns and _QUESTIONS.isdisjoint(columns)
    # A conversation's name is sent nowhere, and stands in no other column of the results.
    return (ROW_FIELDS - {"conversation"}) | _IDS | (_BATCH_LINE if is_batch else frozenset())


def said_by_row(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The request fields that a row sets. Raises BadRow."""
    said = _fields(columns)
    if has_question(said):
        return said
    body = columns.get("body")
    if isinstance(body, str) and body.lstrip().startswith("{"):
        body = from_json("body", body)
    if not isinstance(body, dict):
        names = ", ".join(list(columns)[:_SHOWN_NAMES]) + (", ..." if len(columns) > _SHOWN_NAMES else "")
        raise BadRow(f"no 'messages' or 'prompt' key (found: {names or 'nothing'})")
    _check_batch_line(columns.get("method"), columns.get("url"))
    return _agent_in(columns.get("url")) | said | _of_body(body)


def session_of_row(columns: Mapping[str, Any]) -> str | None:
    """What the row says of the order it wants: its conversation, else its session. Raises BadRow."""
    return session_of(columns.get("conversation"), columns.get("session_id"))


def _fields(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _parsed(name, value) if type(value) is str else value
        for name, value in columns.items()
        if value is not None and name in ROW_FIELDS
    }


def _parsed(name: str, text: str) -> Any:
    if name in _JSON_FIELDS:
        return from_json(name, text)
    if name in _MAYBE_JSON_FIELDS and text.lstrip().startswith(("[", "{")):
        # A stop sequence may well begin with a bracket.
        return _stops(text) if name == "stop" else from_json(name, text)
    return text


def _stops(text: str) -> Any:
    try:
        stops = from_json("stop", text)
    except BadRow:
        return text
    return stops if isinstance(stops, list) else text


def _check_batch_line(method: Any, url: Any) -> None:
    if method is not None and str(method).upper() != "POST":
        raise BadRow(f"method: expected 'POST', got {method!r}")
    if url is not None and not str(url).partition("?")[0].rstrip("/").endswith(_URL_END):
        raise BadRow(f"url: expected an address that ends in {_URL_END!r}, got {url!r}")


def _agent_in(url: Any) -> dict[str, Any]:
    """Where an agent's name is part of the path, a batch line has it nowhere else."""
    found = _URL_AGENT.search(str(url))
    return {"agent_id": unquote(found[1])} if found else {}


def _of_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a batch line's body; those of no known name are extra fields, as they stand."""
    said = _fields({name: value for name, value in body.items() if name in _BODY_FIELDS})
    if "prompt" not in said and "messages" not in said:
        raise BadRow(f"body: no 'messages' key, got {kind_of(body.get('messages'))}")
    extra = {name: value for name, value in body.items() if name not in _BODY_FIELDS}
    return said | ({"extra": extra} if extra else {})
