"""What a report counts: outcomes, spreads, the time of work, the log."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import at, digest, failed, made, outcome

from batchrunner.report import numbers
from batchrunner.report.diary import read_diary
from batchrunner.report.spread import Spread
from batchrunner.report.timeline import MOST_BINS, Settled

if TYPE_CHECKING:
    from pathlib import Path


@given(st.lists(st.floats(0.001, 10_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_right_to_one_per_cent(values, share):
    spread = Spread()
    spread.add(pl.Series(values))

    exact = sorted(values)[math.ceil(len(values) * share) - 1]
    assert spread.quantile(share) == pytest.approx(exact, rel=0.0101)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=200), st.integers(1, 40))
def test_bars_hold_every_value_once(values, most):
    spread = Spread()
    spread.add(pl.Series(values))

    bars = [*spread.bars(most)]
    assert sum(number for *_, number in bars) == len(values)
    assert len(bars) <= most
    assert all(start < end for start, end, _ in bars)


def test_of_nothing_there_are_no_quantiles():
    spread = Spread()
    spread.add(pl.Series([None, None], dtype=pl.Float64))

    assert (spread.quantile(0.5), spread.mean, [*spread.bars(5)]) == (None, None, [])


def test_outcomes_failures_and_sums_are_counted(tmp_path: Path):
    rows = [*map(outcome, range(6)), failed(6), failed(7), failed(8, "timeout", status="rejected", http_status=None)]
    figures = digest(made(tmp_path, rows, rows=10)).figures

    assert figures.statuses == {"succeeded": 6, "exhausted": 2, "rejected": 1}
    assert [(each.error_type, each.items, each.first_id) for each in figures.commonest] == [
        ("server", 2, "id-6"),
        ("timeout", 1, "id-8"),
    ]
    assert figures.all.tokens["prompt_tokens"] == 240
    assert figures.groups["gpt-4o-mini"].cost_usd == pytest.approx(0.009)
    assert figures.latency.count == 6


def test_items_without_an_outcome_are_unfinished(tmp_path: Path):
    found = digest(made(tmp_path, map(outcome, range(4)), rows=10))

    assert found.counts == {"succeeded": 4, "rejected": 0, "exhausted": 0, "unfinished": 6}


def test_a_redone_item_counts_once_and_its_money_twice(tmp_path: Path):
    found = digest(made(tmp_path, [outcome(0), outcome(1), failed(0)], rows=2))

    assert found.figures.statuses == {"succeeded": 2}
    assert found.state["cost_usd"] == pytest.approx(0.003)


def test_a_run_of_nothing_has_a_report(tmp_path: Path):
    found = digest(made(tmp_path, [], rows=0), texts=True)

    assert (found.total, found.timeline.attempts, found.slowest) == (0, 0, [])


def test_copies_of_other_outcomes_were_neither_sent_nor_spent_on(tmp_path: Path):
    """They keep the times and tokens of their source, which may be of last week."""
    old = {"origin": "reused", "cost_usd": 0.0, "started_at": 1, "finished_at": 9_000_000, "latency_s": 9.0}
    rows = [*map(outcome, range(4)), *(outcome(row, **old) for row in range(4, 9))]

    found = digest(made(tmp_path, rows, rows=9))

    assert found.figures.origins == {"sent": 4, "reused": 5}
    assert (found.figures.latency.count, found.timeline.attempts) == (4, 4)
    assert found.figures.all.tokens["prompt_tokens"] == found.state["prompt_tokens"] == 160
    assert found.timeline.seconds == pytest.approx(4, abs=1)
    assert {item.item_id for item in found.slowest} == {f"id-{row}" for row in range(4)}


def test_the_slowest_are_those_that_took_longest_with_their_waits(tmp_path: Path):
    rows = [outcome(row, started_at=1_764_000_000_000_000 - row * 1_000_000) for row in range(30)]

    assert [item.item_id for item in digest(made(tmp_path, rows, rows=30)).slowest][:2] == ["id-29", "id-28"]


def test_time_between_two_invocations_is_no_time_of_work(tmp_path: Path):
    """Ten seconds on one day and ten on the next are twenty, at sixty requests a minute."""
    day = 86_400_000_000
    rows = [outcome(row) for row in range(10)]
    rows += [outcome(row, finished_at=rows[row - 10].finished_at + day) for row in range(10, 20)]
    log = [
        {"time": at(0), "event": "run_started"},
        {"time": at(11), "event": "run_ended"},
        {"time": at(86_400), "event": "run_started"},
    ]

    whole = digest(made(tmp_path, rows, rows=20, log=log)).timeline

    assert whole.seconds == pytest.approx(21, abs=1.5)
    assert whole.attempts == 20
    assert len(whole.resumed_s) == 1


def test_without_a_log_the_outcomes_tell_the_time(tmp_path: Path):
    whole = digest(made(tmp_path, map(outcome, range(30)), rows=30)).timeline

    assert whole.seconds == pytest.approx(30, abs=1.5)


def test_the_limit_is_what_was_kept_to_at_that_time(tmp_path: Path):
    """Set to 600, announced as 120 after ten seconds, learned as 60 after twenty."""
    log = [
        {"time": at(0), "event": "run_started"},
        {"time": at(10), "event": "limit_announced", "lane": "key", "requests_per_minute": 120},
        {"time": at(20), "event": "rate_learned", "lane": "key", "requests_per_minute": 60, "by": "sure"},
    ]
    run = made(tmp_path, map(outcome, range(30)), rows=30, log=log)
    job = {"limits": {"requests_per_minute": 600}}

    stretches = digest(run, job=job, lanes=[{"lane": "key"}]).timeline.stretches

    assert [stretches[second].requests_limit for second in (2, 12, 25)] == [600, 120, 60]


def test_a_limit_that_no_event_told_is_that_of_the_manifest(tmp_path: Path):
    run = made(tmp_path, map(outcome, range(10)), rows=10, log=[{"time": at(0), "event": "run_started"}])

    whole = digest(run, limit_per_minute=60.0).timeline

    assert whole.used("requests") == pytest.approx(1.0, abs=0.1)


def test_bins_of_a_long_run_widen(monkeypatch: pytest.MonkeyPatch):
    settled, days = Settled(), 40
    seconds = range(0, days * 86_400, 60)
    settled.add(
        pl.DataFrame(
            {"finished_at": seconds, "attempts": [1] * len(seconds), "tokens": [2] * len(seconds)}
        ).with_columns(pl.from_epoch("finished_at"))
    )

    assert len(settled.bins) <= MOST_BINS
    assert sum(attempts for attempts, _ in settled.bins.values()) == len(seconds)


def test_a_cut_line_of_the_log_is_passed_over(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    good = {"time": at(1), "event": "lane_paused", "lane": "key", "seconds": 2.5, "error_type": "rate_limit"}
    log.write_text(json.dumps(good) + '\n[1]\nnull\n{"time": 3}\n' + json.dumps(good)[:40])

    diary = read_diary(log)

    assert [each.said for each in diary.decisions] == ["nothing was sent for 2.5 s: rate limit"]


def test_of_very_many_decisions_the_first_and_the_last_are_kept(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    lines = (
        {"time": at(n), "event": "lane_paused", "lane": "k", "seconds": n, "error_type": None} for n in range(1_000)
    )
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    diary = read_diary(log)

    assert diary.of_pacing() == {"lane_paused": 1_000}
    assert (diary.left_out, len(diary.decisions)) == (880, 120)
    assert "999.0 s" in diary.decisions[-1].said


def test_every_event_of_the_pacing_has_words(tmp_path: Path):
    """One that is not known is told by its fields."""
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"time": at(0), "event": "lane_polished", "lane": "k", "with": "wax", "times": 2}) + "\n")

    assert read_diary(log).decisions[0].said == "with wax, times 2"


@pytest.mark.parametrize(
    ("usd", "said"),
    [(None, "unknown"), (0.0, "$0.00"), (1234.5, "$1,234.50"), (0.02, "$0.0200"), (0.0000123, "$0.000012")],
)
def test_money_keeps_the_figures_that_count(usd, said):
    assert numbers.money(usd) == said


@pytest.mark.parametrize(
    ("part", "said"), [(0, "0 %"), (1, "<0.1 %"), (5_000, "50.0 %"), (9_999, ">99.9 %"), (10_000, "100 %")]
)
def test_a_share_that_is_not_all_is_not_written_as_all(part, said):
    assert numbers.share(part, 10_000) == said
