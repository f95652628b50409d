"""What people see: lines that fit, text that cannot harm a terminal."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.console import display_for, summary_lines
from batchrunner.console.display import live_lines, progress_line
from batchrunner.console.text import brief, clean, clock, money
from batchrunner.events import Progress


def progress(**changes: object) -> Progress:
    facts = {
        "name": "job", "done": 12_400, "total": 50_000, "succeeded": 12_397, "failed": 3,
        "failed_by_type": {"timeout": 3}, "per_minute": 598.0, "limit_per_minute": 600.0, "in_flight": 48,
        "most_in_flight": 64, "slots": 64, "oldest_s": 4.0, "waiting": 0, "throttled": 0, "tokens": 90_000,
        "cost_usd": 1.52, "seconds": 1_245.0, "left_s": 3_722.0, "draining": False,
    }  # fmt: skip
    return Progress(**(facts | changes))  # type: ignore[arg-type]


def summary(**changes: object) -> dict[str, object]:
    return {
        "type": "finished", "name": "job", "run": "runs/job", "results": None, "exit": 3, "reason": "2 were rejected",
        "items": {"total": 10, "succeeded": 8, "rejected": 2, "exhausted": 0, "unfinished": 0, "length": 1},
        "now": {"sent": 11, "settled_before": 0, "cost_usd": 0.01, "seconds": 61.2, "possibly_billed": 1},
        "prompt_tokens": 10,
        "completion_tokens": 5, "cost_usd": 0.01, "possibly_billed": 1, "max_cost_usd": 5.0,
        "failed_by_type": {kind: {"count": 1, "first_id": "a" * 200, "first_row": 7} for kind in "abcdef"},
        "pace": "598 requests a minute of 600 allowed, 0 x 429, latency p50 0.4 s, p95 1.2 s",
        "commands": {name: f"batchrunner {name} x" for name in ("go on", "longer", "look", "report")},
    } | changes  # fmt: skip


def test_the_progress_line_reads_as_documented():
    line = progress_line(progress())

    assert line == "12,400/50,000 598 rpm (100 %) 48 in flight 3 failed $1.52 ETA 01:02:02"


@given(total=st.integers(0, 10**9), width=st.integers(40, 200), notes=st.lists(st.text(), max_size=4))
def test_the_live_display_never_is_wider_than_its_terminal(total, width, notes):
    lines = live_lines(progress(total=total, done=total // 2, notes=tuple(notes), draining=True), width)

    assert max(len(line) for line in lines) <= width
    assert len(lines) <= 8


def test_of_a_long_reason_how_it_begins_and_what_to_do_are_shown():
    path = "/".join(["a-long-name"] * 30)
    lines = summary_lines(
        summary(exit=16, reason=f"{path}: no space left; make room, then give the same command again")
    )

    said = " ".join(line[9:] for line in lines[1:5])
    assert "a-long-name" in said
    assert "make room, then give the same command again" in said
    assert max(len(line) for line in lines) <= 80


def test_the_summary_has_twelve_lines_of_eighty_columns():
    lines = summary_lines(summary())

    assert len(lines) <= 12
    assert max(len(line) for line in lines) <= 80


def test_what_may_be_billed_is_told_for_the_whole_run_and_for_now():
    told = [summary_lines(summary(possibly_billed=count, failed_by_type={})) for count in (9_999, 1)]

    assert "billed   9,999 requests went out, no answer came: maybe billed (1 now)" in told[0]
    assert "billed   1 requests went out, no answer came: maybe billed" in told[1]


def test_a_command_in_the_summary_is_never_cut():
    command = "batchrunner run " + "x" * 200

    assert f"go on    {command}" in summary_lines(summary(commands={"go on": command}))


@given(st.text())
def test_foreign_text_cannot_steer_a_terminal(text):
    shown = clean(text + "\x1b[2J\x9b31m\u202e\r\n")

    assert not set(shown) & {"\x1b", "\x9b", "\u202e", "\r", "\n", "\x00", "\x07"}


def test_a_pipe_gets_lines_without_control_characters():
    stream = io.StringIO()
    display = display_for(as_json=False, quiet=False, every_s=30, stderr=stream)

    display.began("new run runs/job", {})
    display.progress(progress())
    display.ended()

    assert all(c == "\n" or c.isprintable() for c in stream.getvalue())
    assert "12,400/50,000" in stream.getvalue()


def test_a_stream_that_was_closed_does_not_end_the_run():
    stream = io.StringIO()
    stream.close()

    display_for(as_json=False, quiet=False, every_s=30, stderr=stream).progress(progress())

    assert stream.closed


def test_json_lines_carry_a_type(capsys):
    display = display_for(as_json=True, quiet=False, every_s=30)

    display.began("new run x", {"run": "x"})
    display.progress(progress())

    kinds = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["started", "progress"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00"), (62, "01:02"), (3_722, "01:02:02"), (360_000, "100:00:00")]
)
def test_times_read_as_a_clock(seconds, shown):
    assert clock(seconds) == shown


def test_small_sums_are_not_rounded_away():
    assert (money(0.0012), money(1.5), money(None), brief(0.25)) == ("$0.0012", "$1.50", "cost unknown", "0.25 s")
