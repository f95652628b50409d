"""`jobs/airflow_dag.py` in a real Airflow 3: what it tries again it does not buy again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import Api, api, environment, prompts, write_rows
from real import needs

from batchrunner import spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

DAG = Path(__file__).parents[2] / "jobs" / "airflow_dag.py"
DAY = "2026-11-20"
ROWS = 60


@dataclass(frozen=True, slots=True)
class Airflow:
    """An Airflow home with the DAG, its settings, and a job that asks a simulator."""

    home: Path
    commands: Path
    settings: Mapping[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.commands / "airflow", *words],
            cwd="/",
            env=environment(**self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def dags_test(self) -> Ended:
        return finish(self.start("dags", "test", "enrichment", DAY))

    def python(self, script: str) -> Any:
        """What a script prints as JSON in its last line, in Airflow's own Python."""
        done = subprocess.run(
            [self.commands / "python", "-c", f"import airflow_dag, json, sys\n{script}"],
            env=environment(**self.settings, PYTHONPATH=str(self.home / "dags")),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    @property
    def day(self) -> Path:
        return self.home / "runs" / f"enrichment-{DAY}"

    def shard_at_work(self) -> tuple[Path, dict[str, Any]]:
        """A shard's run in the middle of its work, with its state."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for path in self.day.glob("shard-*-of-3/run.json"):
                state = json.loads(path.read_text())
                done = state["items"]["succeeded"]
                if state["state"] == "running" and 0 < done < state["items"]["total"] - 8:
                    return path.parent, state
            time.sleep(0.02)
        raise AssertionError("no shard began to work")


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    log: str

    def tries(self, task: str) -> int:
        """How often tasks of that name were begun."""
        return self.log.count(f"[DAG TEST] starting task_id={task} ")


def finish(process: subprocess.Popen[str]) -> Ended:
    try:
        log, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    return Ended(process.returncode, log)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home whose database is ready."""
    commands, home = needs.airflow(), tmp_path_factory.mktemp("airflow")
    settings = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    subprocess.run(
        [commands / "airflow", "db", "migrate"],
        env=environment(**settings),
        check=True,
        capture_output=True,
        timeout=300,
    )
    return home


@pytest.fixture
def tess(tmp_path: Path) -> Iterator[Api]:
    with api(tmp_path / "api.jsonl", latency=0.3) as found:
        yield found


@pytest.fixture
def airflow(tmp_path: Path, migrated: Path, tess: Api) -> Airflow:
    home = tmp_path / "airflow"
    home.mkdir()
    shutil.copy(migrated / "airflow.db", home)
    (home / "dags").mkdir()
    shutil.copy(DAG, home / "dags")
    write_rows(home / f"rows-{DAY}.jsonl", prompts(ROWS))
    (home / "env").write_text("TESS_API_KEY=from-the-file\n")
    (home / "env").chmod(0o600)
    (home / "job.toml").write_text(
        f"""
        params.ds = ""
        input.path = "rows-{{{{ params.ds }}}}.jsonl"
        provider = {{ kind = "tess", base_url = "{tess.url}", workspace_id = 11 }}
        request.agent_id = 8794
        limits = {{ requests_per_minute = "none", concurrency = 6 }}
        """
    )
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "ENRICHMENT_BATCHRUNNER": str(Path(sys.executable).with_name("batchrunner")),
        "ENRICHMENT_JOB": str(home / "job.toml"),
        "ENRICHMENT_ENV_FILE": str(home / "env"),
        "ENRICHMENT_RUNS": str(home / "runs"),
        "ENRICHMENT_RETRY_DELAY_S": "1",
    }
    return Airflow(home, needs.airflow(), settings)


def merged(airflow: Airflow) -> pl.DataFrame:
    return pl.read_parquet(airflow.day / "results.parquet")


def test_a_shard_that_is_killed_is_resumed_by_the_retry(airflow: Airflow, tess: Api):
    process = airflow.start("dags", "test", "enrichment", DAY)
    shard, state = airflow.shard_at_work()
    assert str(airflow.home).encode() in Path(f"/proc/{state['pid']}/cmdline").read_bytes()
    os.kill(state["pid"], signal.SIGKILL)
    ended = finish(process)

    assert ended.code == 0, ended.log[-5000:]
    assert (ended.tries("plan"), ended.tries("shard"), ended.tries("merge")) == (1, 4, 1)
    assert "batchrunner ended with -9" in ended.log
    answered = tess.answered()
    again = {body for body, times in answered.items() if times > 1}
    assert len(answered) == ROWS
    assert max(answered.values()) <= 2
    assert len(again) <= state["slots"] <= 2  # In flight at the kill: a third of the job's six.
    of_shard = set(pl.read_parquet(shard / "results.parquet")["item_id"])
    assert {json.loads(body)["messages"][-1]["content"].replace("Say p ", "p") for body in again} <= of_shard
    table = merged(airflow)
    assert table["row"].to_list() == list(range(ROWS))
    assert set(table["status"]) == {"succeeded"}


def test_a_sigterm_drains_the_shard_and_the_retry_buys_nothing_twice(airflow: Airflow, tess: Api):
    process = airflow.start("dags", "test", "enrichment", DAY)
    shard, _ = airflow.shard_at_work()
    process.send_signal(signal.SIGTERM)
    ended = finish(process)

    assert ended.code == 0, ended.log[-5000:]
    assert "batchrunner ended with 143" in ended.log
    exits = [entry["exit"] for entry in json.loads((shard / "run.json").read_text())["history"]]
    assert exits == [143, 0]
    assert set(tess.answered().values()) == {1}
    assert tess.answered().total() == len(merged(airflow)) == ROWS


def test_the_same_day_again_buys_nothing_and_an_empty_day_is_skipped(airflow: Airflow, tess: Api):
    assert airflow.dags_test().code == 0
    again = airflow.dags_test()
    assert (again.code, tess.answered().total()) == (0, ROWS)

    write_rows(airflow.home / f"rows-{DAY}.jsonl", [])
    shutil.rmtree(airflow.day)
    empty = airflow.dags_test()

    assert empty.code == 0, empty.log[-5000:]
    assert empty.log.count("batchrunner ended with 99") == 3
    assert empty.tries("merge") == 0
    assert not (airflow.day / "results.parquet").exists()


def test_a_job_that_cannot_start_is_not_tried_again(airflow: Airflow, tess: Api):
    (airflow.home / f"rows-{DAY}.jsonl").unlink()

    ended = airflow.dags_test()

    assert ended.code != 0
    assert "batchrunner ended with 2" in ended.log
    assert (ended.tries("plan"), ended.tries("shard"), len(tess.seen())) == (1, 0, 0)


def test_each_code_is_told_from_the_others(airflow: Airflow):
    script = """
def name(code):
    try:
        return airflow_dag.judged(code, '{"reason": "so"}')
    except Exception as error:
        return type(error).__name__
print(json.dumps({code: name(code) for code in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 99, 130, 143, -9)}))
"""
    told = airflow.python(script)

    assert told.pop("0") == {"reason": "so"}
    assert told.pop("99") == "AirflowSkipException"
    fatal = {code for code, name in told.items() if name == "AirflowFailException"}
    assert fatal == {"2", "3", "10", "12", "13", "17"}
    assert {name for code, name in told.items() if code not in fatal} == {"AirflowException"}


def test_the_day_names_the_run_whoever_starts_it(airflow: Airflow):
    script = """
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
def day(moment, **params):
    try:
        return airflow_dag.day({"params": params, "dag_run": SimpleNamespace(logical_date=moment)})
    except airflow_dag.AirflowFailException as error:
        return str(error)
west = datetime(2026, 11, 20, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
print(json.dumps([day(west), day(west, ds="2026-11-18"), day(None, ds="2026-11-18"), day(None, ds=None)]))
"""
    *days, refused = airflow.python(script)

    assert days == ["2026-11-21", "2026-11-18", "2026-11-18"]
    assert "trigger it with the parameter ds" in refused


def test_a_timeout_of_airflow_drains_too(airflow: Airflow, tess: Api):
    script = f"""
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
run = airflow_dag.Batchrunner(task_id="shard", words=["run", *airflow_dag.ASKED])
try:
    with timeout(3):
        run.execute({{"params": {{"ds": "{DAY}"}}}})
except AirflowTaskTimeout:
    print(json.dumps(run.child.returncode))
"""
    assert airflow.python(script) == 143
    state = json.loads((airflow.day / "run.json").read_text())
    assert state["state"] == "drained"
    assert 0 < state["items"]["succeeded"] == tess.answered().total() < ROWS


def test_a_run_that_outlives_its_worker_is_waited_for(airflow: Airflow, tess: Api):
    write_rows(airflow.home / f"rows-{DAY}.jsonl", prompts(150))
    process = airflow.start("dags", "test", "enrichment", DAY)
    shard, _ = airflow.shard_at_work()
    process.kill()  # No word to anybody, as when memory runs out: the shard goes on without it.
    process.communicate(timeout=20)

    next_try = f"""
words = ["run", *airflow_dag.ASKED, "--wait-lock", airflow_dag.WAIT_LOCK, "--shard", "{shard.name[6]}/3"]
again = airflow_dag.Batchrunner(task_id="shard", words=words)
print(json.dumps(again.execute({{"params": {{"ds": "{DAY}"}}}})))
"""
    summary = airflow.python(next_try)

    assert (summary["exit"], summary["now"]["sent"]) == (0, 0)
    history = json.loads((shard / "run.json").read_text())["history"]
    assert [entry["exit"] for entry in history] == [0, 0]
    assert set(tess.answered().values()) == {1}


def test_airflow_outlasts_the_run_that_it_waits_for(airflow: Airflow):
    words = "airflow_dag.WAIT_LOCK, airflow_dag.DEADLINE, airflow_dag.GRACE"
    timeout_s, *clocks = airflow.python(f"print(json.dumps([airflow_dag.EXECUTION_TIMEOUT.total_seconds(), {words}]))")

    assert sum(spec.parse_duration(clock) for clock in clocks) < timeout_s
