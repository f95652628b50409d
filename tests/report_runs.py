"""Run directories to be reported, made by the store itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchrunner.assemble import open_table, state_of
from batchrunner.records import Outcome
from batchrunner.report import gather
from batchrunner.store.opening import open_run
from batchrunner.store.run import Epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchrunner.report import Digest

BEGAN_US = 1_764_000_000_000_000


def outcome(row: int, **fields: Any) -> Outcome:
    """An item that took a second, one after another."""
    known: dict[str, Any] = {
        "item_id": f"id-{row}", "row": row, "input_file": "f", "input_line": row + 1, "status": "succeeded",
        "text": f"answer {row}", "model": "gpt-4o-mini", "finish_reason": "stop", "origin": "sent", "attempts": 1,
        "prompt_tokens": 40, "completion_tokens": 10, "cost_usd": 0.001, "http_status": 200, "latency_s": 0.5,
        "first_token_s": 0.2, "started_at": BEGAN_US + row * 1_000_000, "finished_at": BEGAN_US + (row + 1) * 1_000_000,
    }  # fmt: skip
    return Outcome(**known | {"request_key": f"key-{row}"} | fields)


def failed(row: int, error_type: str = "server", **fields: Any) -> Outcome:
    lost = {"text": None, "latency_s": None, "first_token_s": None, "prompt_tokens": None, "completion_tokens": None}
    told = {"status": "exhausted", "error_type": error_type, "error": f"{error_type} trouble", "http_status": 500}
    return outcome(row, **lost | told | fields)


def made(
    directory: Path,
    outcomes: Iterable[Outcome],
    *,
    rows: int,
    log: Iterable[Mapping[str, Any]] = (),
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """A run directory with these outcomes, half of them in a part and half in the journal."""
    known = [*outcomes]
    with open_run(directory) as run:
        run.begin(Epoch(input={}, asked={}, rows=rows))
        for number, each in enumerate(known):
            run.append(each)
            if number + 1 == len(known) // 2:
                run.seal()
        run.sync()
    (directory / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    if manifest is not None:
        (directory / "run.json").write_text(json.dumps(manifest))
    return directory


def digest(directory: Path, *, texts: bool = False, **state: Any) -> Digest:
    found = state_of(directory, alive=False)
    return gather(open_table(directory), {**found, **state}, directory / "log.jsonl", texts=texts)


def at(second: float) -> str:
    """A moment of the log, so many seconds after the run began."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(BEGAN_US / 1e6 + second, UTC).isoformat().replace("+00:00", "Z")
