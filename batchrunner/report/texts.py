"""What items were asked and what they answered, as a reader wants to see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batchrunner.assemble import Table

TEXTS = ("text", "reasoning", "refusal", "turns")
"""The columns that an answer is read from."""
LONGEST = 100_000
"""Characters of a text that are kept until it is cut for where it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What an item was asked, and what came back; None where there is none, or it cannot be told any more."""

    prompt: str | None
    reply: str | None


def texts_of(table: Table, rows: Collection[int]) -> dict[int, Texts]:
    """The texts of these rows, in one pass over the outcomes and one over the input."""
    if not rows:
        return {}
    columns = ["row", *TEXTS]
    found = (row for batch in table.view.outcomes(columns, rows=rows) for row in batch.to_pylist())
    replies = {row["row"]: reply_of(row) for row in found}
    sent = table.sent_all(rows)
    return {row: Texts(prompt=prompt_of(sent.get(row)), reply=replies.get(row)) for row in rows}


def reply_of(row: Mapping[str, Any]) -> str | None:
    turns = json.loads(row["turns"] or "[]")
    if turns:
        answers = (turn.get("text") or turn.get("refusal") or "" for turn in turns)
        return "\n".join(f"[{number}] {answer}" for number, answer in enumerate(answers, 1))[:LONGEST]
    found = row["text"] or row["refusal"] or row["reasoning"]
    return None if found is None else str(found)[:LONGEST]


def prompt_of(body: str | None) -> str | None:
    """The messages of a request's body as a reader wants them; the body itself where it has none."""
    if body is None or body.startswith("nothing: "):
        return None  # A row that cannot be asked; its error says why.
    try:
        messages = json.loads(body)["messages"]
        return "\n".join(f"{each['role']}: {_content(each.get('content'))}" for each in messages)[:LONGEST]
    except (ValueError, KeyError, TypeError):
        return body[:LONGEST]


def _content(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
