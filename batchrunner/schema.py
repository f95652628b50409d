"""The declared tables: what a results file holds, and what a part adds for the store's own use."""

from __future__ import annotations

import pyarrow as pa

_TIME = pa.timestamp("us", tz="UTC")

OUTCOME = pa.schema(
    [
        ("item_id", pa.string()),
        ("row", pa.int64()),
        ("input_file", pa.string()),
        ("input_line", pa.int64()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("reasoning", pa.string()),
        ("refusal", pa.string()),
        ("finish_reason", pa.string()),
        ("tool_calls", pa.string()),
        ("choices", pa.string()),
        ("provider", pa.string()),
        ("agent_id", pa.string()),
        ("model", pa.string()),
        ("session_id", pa.string()),
        ("response_id", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("total_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("failed_prompt_tokens", pa.int64()),
        ("failed_completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("origin", pa.string()),
        ("attempts", pa.int32()),
        ("possibly_billed", pa.int32()),
        ("http_status", pa.int16()),
        ("error_type", pa.string()),
        ("error", pa.string()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
        ("latency_s", pa.float64()),
        ("first_token_s", pa.float64()),
        ("request_key", pa.string()),
        ("sent_changes", pa.string()),
        ("warnings", pa.string()),
        ("response", pa.string()),
    ]
)
"""One row per item, as `records.Outcome` has it; kept input columns follow in a results file."""

TURNS = pa.field("turns", pa.string())
"""The answers to an item's turns: a column of results where items have turns, of parts always."""

RECORD = OUTCOME.append(TURNS)
"""What the journal holds of an outcome."""


def outcome_schema(*, has_turns: bool) -> pa.Schema:
    """The columns of a result that are no input's, by whether the items have turns."""
    return RECORD if has_turns else OUTCOME


PART = RECORD.append(pa.field("sequence", pa.int64())).append(pa.field("epoch", pa.int32()))
"""One row per outcome ever recorded. `epoch` numbers the pair of input and job that `row` is a position in."""

SENT = ("sent", "reparsed")
"""Origins of answers that were bought by their own run: a verdict that is revised leaves what they cost and took."""
