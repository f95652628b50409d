"""The command lines of the units in `jobs/`, run as Kubernetes and systemd would run them."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import yaml
from driving import Api, api, environment, prompts, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

JOBS = Path(__file__).parents[2] / "jobs"
BATCHRUNNER = Path(sys.executable).with_name("batchrunner")
DAY = "2026-11-20"


@pytest.fixture
def tess(tmp_path: Path) -> Iterator[Api]:
    with api(tmp_path / "api.jsonl", latency=0.2) as found:
        write_rows(tmp_path / f"rows-{DAY}.jsonl", prompts(60))
        (tmp_path / "nightly.toml").write_text(
            f"""
            params.ds = ""
            input.path = "rows-{{{{ params.ds }}}}.jsonl"
            provider = {{ kind = "tess", base_url = "{found.url}", workspace_id = 11 }}
            request.agent_id = 8794
            limits = {{ requests_per_minute = "none", concurrency = 6 }}
            """
        )
        yield found


class Pod:
    """A container of the manifest, with the volumes where the test has them."""

    def __init__(self, home: Path, job: dict, **env: str) -> None:  # type: ignore[type-arg]
        container = job["spec"]["template"]["spec"]["containers"][0]
        known = {**{each["name"]: each["value"] for each in container["env"]}, **env}
        words = [re.sub(r"\$\((\w+)\)", lambda name: known[name[1]], word) for word in container["args"]]
        places = {"/job/": f"{home}/", "/data/": f"{home}/data/"}
        for place, here in places.items():
            words = [word.replace(place, here) for word in words]
        self.process = subprocess.Popen(
            [BATCHRUNNER, *words],
            env=environment(TESS_API_KEY="from-the-secret", **known),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=40)
        return self.process.returncode, out


def test_the_indexed_job_is_evicted_resumed_and_merged(tmp_path: Path, tess: Api):
    _, shards, merge = yaml.safe_load_all((JOBS / "kubernetes" / "indexed-job.yaml").read_text())
    day = tmp_path / "data" / "runs" / f"enrichment-{DAY}"
    pods = [Pod(tmp_path, shards, JOB_COMPLETION_INDEX=str(index)) for index in range(3)]
    evicted = day / "shard-1-of-3"
    deadline = time.monotonic() + 20
    while not (evicted / "run.json").exists() or not json.loads((evicted / "run.json").read_text())["now"]["sent"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pods[1].process.send_signal(signal.SIGTERM)
    ended = [pod.end() for pod in pods]
    early = Pod(tmp_path, merge).end()
    again = Pod(tmp_path, shards, JOB_COMPLETION_INDEX="1").end()
    whole = Pod(tmp_path, merge).end()

    assert [code for code, _ in ended] == [0, 143, 0], ended
    assert early[0] == 10
    assert f"{evicted}: not finished (drained" in early[1]
    assert (again[0], whole[0]) == (0, 0), (again, whole)
    assert pl.read_parquet(day / "results.parquet")["status"].to_list() == ["succeeded"] * 60
    assert set(tess.answered().values()) == {1}


def test_the_service_keeps_to_the_day_it_began(tmp_path: Path, tess: Api):
    text = (JOBS / "systemd" / "batchrunner-nightly.service").read_text()
    places = {
        "%%": "%", "$$": "$", "%t": f"{tmp_path}/run", "%S": f"{tmp_path}/state", "%d": f"{tmp_path}/credentials",
        "/opt/batchrunner/bin/batchrunner": str(BATCHRUNNER),
        "/opt/enrichment/jobs/nightly_enrichment.toml": f"{tmp_path}/nightly.toml",
    }  # fmt: skip
    for word, meant in places.items():
        assert word in text
        text = text.replace(word, meant)
    before, start = (re.search(rf"^{key}=(.*)", text, re.MULTILINE)[1] for key in ("ExecStartPre", "ExecStart"))  # type: ignore[index]
    for folder in ("run/batchrunner-nightly", "state/enrichment", "credentials"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "credentials" / "tess.key").write_text("from-the-credential\n")
    (tmp_path / "credentials" / "tess.key").chmod(0o400)
    day = tmp_path / "run" / "batchrunner-nightly" / "day"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line)
        return subprocess.run(words, cwd="/", env=environment(), capture_output=True, text=True, timeout=40)

    assert run(before).returncode == 0
    assert day.read_text().strip() == time.strftime("%F")
    day.write_text(f"{DAY}\n")  # As if it had begun then, and this were a restart.
    assert run(before).returncode == 0
    ended = run(start)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [f"{tmp_path}/state/enrichment/runs/{DAY}/results.parquet"]
    assert tess.answered().total() == 60
