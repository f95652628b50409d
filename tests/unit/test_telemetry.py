"""log.jsonl: whole lines, nothing secret, never in the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from batchrunner.errors import JobError
from batchrunner.telemetry import check_metrics_file, run_log


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_takes_lines_but_never_ends_the_run(tmp_path, capfd):
    told: list[str] = []
    (tmp_path / "log.jsonl").symlink_to("/dev/full")

    with run_log(tmp_path / "log.jsonl", redact=lambda text: text, tell=told.append) as emit:
        for _ in range(3):
            emit("lane_paused", lane="key A")

    assert [line.partition(": ")[2] for line in told] == ["no space left on device; the log has gaps, the run goes on"]
    assert capfd.readouterr().err == ""


def test_a_log_that_cannot_be_opened_is_done_without(tmp_path):
    told: list[str] = []
    (tmp_path / "log.jsonl").mkdir()

    with run_log(tmp_path / "log.jsonl", redact=lambda text: text, tell=told.append) as emit:
        emit("run_started")

    assert "is a directory" in told[0]


def test_without_the_package_a_metrics_file_is_a_fault_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(JobError, match=r"pip install 'batchrunner\[otel\]'"):
        check_metrics_file()
