"""What a limit, a pause and a slow item look like in `status`, the summary and the log."""

from __future__ import annotations

from batchrunner.report import status_lines

STATE = {
    "name": "n",
    "state": "running",
    "items": {"total": 10, "succeeded": 1, "rejected": 0, "exhausted": 0, "unfinished": 9},
    "now": {"sent": 1, "seconds": 2.0, "settled_before": 0},
    "failed_by_type": {},
    "cost_usd": None,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "possibly_billed": 0,
    "notes": ["kept to 2,940 rpm, learned from refusals: key K"],
    "lanes": [
        {
            "lane": "key K",
            "requests_per_minute": 2940.4,
            "requests_by": "learned",
            "slots": 12,
            "throttled": 4,
            "paused_s": 1.6,
        }
    ],
    "oldest": [{"item_id": "t9", "seconds": 41.26}],
    "slowest": [{"item_id": "t1", "seconds": 12.0}, {"item_id": "t2", "seconds": 9.5}],
}


def test_status_says_what_a_lane_keeps_to_and_which_items_are_slow():
    lines = list(status_lines(STATE))

    assert "lane     key K: 2,940 rpm learned, 12 slots, 4 x 429, paused 2 s" in lines
    assert "note     kept to 2,940 rpm, learned from refusals: key K" in lines
    assert "oldest   't9' 41.3 s in flight" in lines
    assert "slowest  't1' 12.0 s, 't2' 9.5 s" in lines


def test_status_of_a_run_from_before_there_were_lanes_is_read():
    old = {name: value for name, value in STATE.items() if name not in ("lanes", "oldest", "slowest", "notes")}

    assert not [line for line in status_lines(old) if line.startswith(("lane", "oldest", "slowest"))]
