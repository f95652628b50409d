"""--metrics-file, read by Prometheus's own parser, its linter and node_exporter."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from driving import api, batchrunner, finish, prompts, run_words, start, write_rows
from real import needs

from batchrunner.telemetry import MetricsFile

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

Metrics = dict[str, dict[tuple[str, ...], float]]
"""By sample name, then by the values of the labels but run and name."""


@pytest.fixture(autouse=True)
def _otel() -> None:
    needs.otel()


def read(text: str) -> Metrics:
    from prometheus_client.parser import text_string_to_metric_families

    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            assert sample.timestamp is None
            labels = {name: value for name, value in sample.labels.items() if name not in ("run", "name")}
            found.setdefault(sample.name, {})[tuple(labels.values())] = sample.value
    return found


def job(tmp_path: Path, url: str, more: str = "") -> Path:
    write_rows(tmp_path / "rows.jsonl", prompts(40))
    path = tmp_path / "job.toml"
    path.write_text(
        f"input.path = 'rows.jsonl'\nprovider = {{ kind = 'tess', base_url = '{url}' }}\nrequest.agent_id = 1\n"
        f"limits = {{ requests_per_minute = 6000, concurrency = 4 }}\ntelemetry.metrics_file = 'job.prom'\n"
        f"labels = {{ team = 'c\"x', 'cost.center' = '7' }}\n{more}"
    )
    return path


def test_the_end_of_a_run_is_in_it_and_the_linter_has_no_word_to_say(tmp_path):
    with api(tmp_path / "api.jsonl", error_rate=0.2) as tess:
        ended = batchrunner("run", job(tmp_path, tess.url), "--json")

    text = (tmp_path / "job.prom").read_text()
    found, now = read(text), ended.summary["now"]
    assert ended.code == 0, ended.err
    assert found["batchrunner_items"] == {("succeeded",): 40, ("rejected",): 0, ("exhausted",): 0, ("unfinished",): 0}
    assert found["batchrunner_requests_total"] == {(): now["sent"]}
    assert found["batchrunner_tokens_total"] == {
        ("prompt",): now["prompt_tokens"], ("completion",): now["completion_tokens"]
    }  # fmt: skip
    assert found["batchrunner_exit_code"] == {(): 0}
    assert found["batchrunner_state"][("finished",)] == 1
    assert sum(found["batchrunner_state"].values()) == 1
    assert found["batchrunner_requests_per_minute_limit"][()] == pytest.approx(6000, rel=0.01)
    assert time.time() - found["batchrunner_heartbeat_timestamp_seconds"][()] < 20
    assert 'label_team="c\\"x"' in text
    assert 'label_cost_center="7"' in text
    assert f'run="{tmp_path}/runs/job"' in text
    assert (tmp_path / "job.prom").stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob(".*partial"))
    lint = subprocess.run(
        [needs.prometheus("promtool"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_while_it_runs_the_file_is_new_every_two_seconds_and_whole(tmp_path):
    path, seen = tmp_path / "job.prom", []
    with api(tmp_path / "api.jsonl", latency=0.8) as tess:
        process = start("run", job(tmp_path, tess.url))
        while process.poll() is None and len(seen) < 500:
            if path.exists():
                seen.append(read(path.read_text()))
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        ended = finish(process)

    running = [found for found in seen if found["batchrunner_state"][("running",)]]
    assert ended.code == 0
    assert all("batchrunner_exit_code" not in found for found in running)
    assert len({found["batchrunner_heartbeat_timestamp_seconds"][()] for found in running}) >= 3
    assert max(found["batchrunner_requests_in_flight"][()] for found in running) == 4
    sent = [found["batchrunner_requests_total"][()] for found in running]
    assert sent == sorted(sent)
    assert 0 < sent[-1] < 40


def test_failures_and_the_exit_code_of_one_that_did_not_go_well(tmp_path):
    with api(tmp_path / "api.jsonl") as tess:
        path = job(tmp_path, tess.url)
        write_rows(tmp_path / "rows.jsonl", [*prompts(3), {"id": "bad"}])
        ended = batchrunner("run", path, "--json")
    failed = read((tmp_path / "job.prom").read_text())
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n')
    broken = batchrunner("run", tmp_path / "job.toml")
    never = read((tmp_path / "job.prom").read_text())

    assert ended.code == 3
    assert failed["batchrunner_exit_code"] == {(): 3}
    assert failed["batchrunner_failed_items_total"] == {("bad_row",): 1}
    assert broken.code == 2
    assert never["batchrunner_exit_code"] == {(): 2}
    assert never["batchrunner_state"][("failed",)] == 1


def test_shards_have_a_file_each_and_the_flag_is_relative_to_where_it_is_said(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(6))
    (tmp_path / "elsewhere").mkdir()
    with api(tmp_path / "api.jsonl") as tess:
        for shard in range(2):
            words = run_words(rows, tess.url, "--metrics-file", "some.prom", "--shard", f"{shard}/2")
            assert batchrunner(*words, cwd=tmp_path / "elsewhere").code == 0

    files = sorted((tmp_path / "elsewhere").glob("*.prom"))
    assert [path.name for path in files] == ["some-shard-0-of-2.prom", "some-shard-1-of-2.prom"]
    assert sum(read(path.read_text())["batchrunner_items"][("succeeded",)] for path in files) == 6


def test_one_that_cannot_be_written_is_one_warning_and_no_more(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    with api(tmp_path / "api.jsonl") as tess:
        ended = batchrunner(*run_words(rows, tess.url, "--metrics-file", tmp_path / "missing" / "some.prom"))

    assert ended.code == 0
    assert ended.err.count("metrics are not written, the run goes on") == 1
    log = [json.loads(line) for line in Path(ended.last_line).with_name("log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log].count("metrics_not_written") == 1


def test_a_device_is_left_alone_a_link_leads_to_the_file_and_a_circle_raises_nothing(tmp_path):
    told: list[str] = []
    manifest = {"run": "runs/a", "name": "a\udcff", "exit": 2}
    fifo, link, circle = tmp_path / "fifo", tmp_path / "link.prom", tmp_path / "circle.prom"
    subprocess.run(["mkfifo", fifo], check=True)
    link.symlink_to(tmp_path / "real.prom")

    circle.symlink_to(circle)

    for path in (fifo, link, circle):
        MetricsFile(path, tell=told.append).write(manifest)

    assert told[0] == f"{fifo}: no regular file; metrics are not written, the run goes on"
    assert fifo.is_fifo()
    assert link.is_symlink()
    assert read((tmp_path / "real.prom").read_text())["batchrunner_exit_code"] == {(): 2}


def test_node_exporter_takes_it(tmp_path):
    collected = tmp_path / "collected"
    collected.mkdir()
    rows = write_rows(tmp_path / "rows.jsonl", prompts(4))
    with api(tmp_path / "api.jsonl") as tess, node_exporter(collected) as url:
        for shard in range(2):
            words = run_words(rows, tess.url, "--metrics-file", collected / "some.prom", "--shard", f"{shard}/2")
            assert batchrunner(*words).code == 0
        with urllib.request.urlopen(url) as answer:
            found = read(answer.read().decode())

    assert found["node_textfile_scrape_error"] == {(): 0}
    assert found["batchrunner_items"][("succeeded",)] in (1, 2, 3)
    assert len(found["node_textfile_mtime_seconds"]) == 2


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [needs.prometheus("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.textfile"]
    where = [f"--collector.textfile.directory={folder}", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen([*command, *where], stderr=subprocess.DEVNULL)
    try:
        _until_open(port)
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.terminate()
        process.wait(10)


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "node_exporter did not open its port"
        time.sleep(0.05)
