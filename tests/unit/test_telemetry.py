"""log.jsonl: whole lines, nothing secret, never in the way."""

from __future__ import annotations

import json

from batchrunner.telemetry import run_log


def test_every_event_is_one_line_with_time_name_and_fields(tmp_path):
    with run_log(tmp_path / "log.jsonl", redact=lambda text: text) as emit:
        emit("lane_paused", lane="key A", seconds=2.5)
        emit("item_rejected", item_id="a\nb", error="größer")

    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert first["event"] == "lane_paused"
    assert first["seconds"] == 2.5
    assert first["time"].endswith("Z")
    assert second["item_id"] == "a\nb"


def test_lines_pass_the_redactor_and_only_the_owner_reads_them(tmp_path):
    with run_log(tmp_path / "log.jsonl", redact=lambda text: text.replace("sk-1", "***")) as emit:
        emit("item_rejected", error="bad key sk-1")

    assert "sk-1" not in (tmp_path / "log.jsonl").read_text()
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_resumed_run_goes_on_in_the_same_log(tmp_path):
    for _ in range(2):
        with run_log(tmp_path / "log.jsonl", redact=lambda text: text) as emit:
            emit("run_started")

    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
