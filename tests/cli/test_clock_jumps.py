"""The wall clock jumps by a day, forth and back, in the middle of waits, replies and time-outs."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from driving import finish, prompts, run_words, start, write_rows
from faulty_server import completion, plain, serve_in_thread
from real import needs

if TYPE_CHECKING:
    from faulty_server import Reply, Seen

WAIT_S = 1
FIRST_BYTE_S = 0.5
LATE_S = 5.0
"""How much longer than it has to a wait may take on a busy machine; a jump is a day."""


def faked_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what `file` says, read at every look at it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        needs.lacking("faketime", "apt-get install -y faketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def throttled(retry_after: str, **headers: str) -> Reply:
    body = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    return {"status": 429, "headers": {"Retry-After": retry_after, **headers}, "body_json": body}


def dated() -> Reply:
    """A hint in the form of a date, a second after the reply's own, in the year of another clock."""
    date = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    later = format_datetime(date + timedelta(seconds=WAIT_S), usegmt=True)
    return throttled(later, Date=format_datetime(date, usegmt=True))


@pytest.mark.slow
def test_no_wait_is_cut_or_prolonged_and_nothing_is_lost_or_doubled(tmp_path):
    clock, rows = tmp_path / "clock", write_rows(tmp_path / "rows.jsonl", prompts(12))
    clock.write_text("+0d")
    jumps: dict[int, tuple[str, Reply | None]] = {
        3: ("+1d", throttled(str(WAIT_S))),
        6: ("-1d", throttled(str(WAIT_S))),
        8: ("+1d", dated()),
        10: ("-1d", {"status": 200, "end": "hang"}),
        13: ("+1d", {**plain("slowly"), "chunk_bytes": 80, "pause_ms": 150}),
    }

    def jump(seen: Seen) -> Reply:
        offset, reply = jumps.get(len(server.seen), (None, None))
        if offset is not None:
            clock.write_text(offset)
        return reply or completion(seen)

    with serve_in_thread() as server:
        server.default = jump
        words = [*run_words(rows, server.url), "--concurrency", 1, "--set", f"timeouts.first_byte_s={FIRST_BYTE_S}"]
        ended = finish(start(*words, "--out", tmp_path / "run", env=faked_clock(clock)))

    assert ended.code == 0, ended.err
    table = ended.table()
    assert table["item_id"].to_list() == [f"p{n}" for n in range(12)]
    assert set(table["status"]) == {"succeeded"}
    assert table["attempts"].sum() == len(server.seen) == 12 + 4
    assert table["finished_at"].max() - table["finished_at"].min() > timedelta(days=1.9)

    gaps = [after.at - before.at for before, after in itertools.pairwise(server.seen)]
    for number, least in ((3, WAIT_S), (6, WAIT_S), (8, WAIT_S), (10, FIRST_BYTE_S)):
        assert least <= gaps[number - 1] < least + LATE_S
    assert table["latency_s"].min() >= 0
    assert 0.3 < table["latency_s"].max() < LATE_S
    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert sum(gaps) < summary["now"]["seconds"] < sum(gaps) + LATE_S
