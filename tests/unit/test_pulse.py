"""A live run, a dead one, and one whose owner is on another machine."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batchrunner.assemble.pulse import pulse
from batchrunner.report import status_lines

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
HERE = socket.gethostname()


def manifest(*, beat_s_ago: float = 1, state: str = "running", host: str = HERE) -> dict[str, Any]:
    beat = (NOW - timedelta(seconds=beat_s_ago)).isoformat().replace("+00:00", "Z")
    return {
        "state": state,
        "heartbeat_at": beat,
        "host": host,
        "pid": 41,
        "call": {"command": "batchrunner run a.toml"},
    }


def first_line(known: dict[str, Any], life: dict[str, Any]) -> str:
    items = dict.fromkeys(("total", "succeeded", "rejected", "exhausted", "unfinished"), 1)
    counts = {"items": items, "failed_by_type": {}, "cost_usd": 0.0, "prompt_tokens": 1, "completion_tokens": 1}
    now = {"sent": 1, "seconds": 1.0, "settled_before": 0}
    return next(status_lines({"name": "nightly", **counts, "possibly_billed": 0, "now": now, **known, **life}))


def test_a_run_that_holds_its_lock_lives():
    known = manifest()
    life = pulse(known, locked=True, now=NOW)

    assert life == {"alive": True, "heartbeat_age_s": 1.0, "dead_since": None}
    assert first_line(known, life) == f"nightly: running (pid 41 on {HERE})"


def test_one_that_does_not_is_dead_since_its_last_heartbeat_however_fresh():
    known = manifest(beat_s_ago=3)
    life = pulse(known, locked=False, now=NOW)

    assert (life["alive"], life["retryable"]) == (False, True)
    assert life["dead_since"] == known["heartbeat_at"]
    assert life["next"] == "batchrunner run a.toml"
    then = (NOW - timedelta(seconds=3)).astimezone()
    line = first_line(known, life)
    assert line.startswith("nightly: dead since ")
    assert line.endswith(f"{then:%H:%M} (pid 41 on {HERE}); give the same command again")


@pytest.mark.parametrize(("beat_s_ago", "alive"), [(3, True), (29, True), (31, False)])
def test_the_lock_of_another_machine_may_be_out_of_sight_but_its_heartbeat_is_not(beat_s_ago: float, alive: bool):
    assert pulse(manifest(beat_s_ago=beat_s_ago, host="other"), locked=False, now=NOW)["alive"] is alive


def test_a_held_lock_without_a_heartbeat_is_said_to_be_odd():
    known = manifest(beat_s_ago=300)

    assert "no heartbeat since" in first_line(known, pulse(known, locked=True, now=NOW))


def test_an_ended_run_is_as_it_was_until_it_is_taken_up_again():
    known = {**manifest(state="drained", beat_s_ago=9_000), "exit": 143, "reason": "interrupted by SIGTERM"}

    assert (
        first_line(known, pulse(known, locked=False, now=NOW)) == "nightly: drained, exit 143: interrupted by SIGTERM"
    )
    assert first_line(known, pulse(known, locked=True, now=NOW)).endswith("; a process has taken it up again")


def test_a_run_that_was_killed_before_its_first_heartbeat():
    assert pulse({}, locked=False)["alive"] is False
    assert first_line({"state": "running"}, {"alive": False}).startswith("nightly: dead since its start")
