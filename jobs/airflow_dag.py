"""A day of enrichment in shards, for Airflow 3: plan, one mapped task per shard, merge.

Airflow and batchrunner never share an environment: the command of batchrunner's own is called by its path.

    python3 -m venv /opt/batchrunner && /opt/batchrunner/bin/pip install /path/to/batchrunner

What a task does again it never buys again. The runs of a day are named by the day alone (the logical date, or the
parameter `ds` where a trigger gives none), not by Airflow's run id or try number, so that a retry, a cleared task and a
second trigger all resume them. The exit code says whether a retry can help; the summary is the task's XCom.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param, dag
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

BATCHRUNNER = os.environ.get("ENRICHMENT_BATCHRUNNER", "/opt/batchrunner/bin/batchrunner")
JOB = os.environ.get("ENRICHMENT_JOB", "/opt/enrichment/jobs/nightly_enrichment.toml")
ENV_FILE = os.environ.get("ENRICHMENT_ENV_FILE", "/etc/batchrunner/env")
# On a disk that all workers share. Absolute: the path of a bundle changes with every commit.
RUNS = os.environ.get("ENRICHMENT_RUNS", "/srv/enrichment/runs")
# For a day that has begun it stays as it is: other shards are other runs.
SHARDS = int(os.environ.get("ENRICHMENT_SHARDS", "3"))
RETRY_DELAY = timedelta(seconds=float(os.environ.get("ENRICHMENT_RETRY_DELAY_S", "300")))

# Waiting for the lock, the deadline and the grace end before Airflow would: it kills, they drain.
EXECUTION_TIMEOUT = timedelta(hours=6)
DEADLINE, WAIT_LOCK, GRACE = "5h30m", "10m", "25s"
DRAINED_S = 30.0

SKIP = 99
NO_RETRY = {2, 3, 10, 12, 13, 17}
"""Usage, rejected items, a bad run directory, a refused key, a changed job, the budget: someone has to look first."""

RUN = f"{RUNS}/enrichment-{{ds}}"
ASKED = [JOB, "--param", "ds={ds}", "--out", RUN, "--env-file", ENV_FILE]


class Batchrunner(BaseOperator):
    """One command of batchrunner; `{ds}` in its words is the day."""

    def __init__(self, *, words: list[str], more: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.more = words, more or []
        self.child: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        ds = day(context)
        words = [word.replace("{ds}", ds) for word in (BATCHRUNNER, *self.words, *self.more, "--json")]
        self.log.info("%s", " ".join(words))
        self.child = subprocess.Popen(
            words,
            # What is set for Airflow's own Python is not for the other.
            env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Airflow kills a task's process group 5 s after its SIGTERM. In a session of its own the run hears of it by
            # `on_kill`, drains, and is waited for by the next try (--wait-lock).
            start_new_session=True,
        )
        try:
            last = self._follow(self.child)
        except BaseException:  # A timeout, or the end of this worker.
            self.on_kill()
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(DRAINED_S)
            raise
        return judged(self.child.wait(), last)

    def _follow(self, child: subprocess.Popen[str]) -> str:
        """Its output into the task's log; the last line."""
        last: deque[str] = deque(maxlen=1)
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                self.log.info("%s", line.rstrip())
                last.append(line)
        return last.pop() if last else ""

    def on_kill(self) -> None:
        if self.child is not None and self.child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGTERM)


def day(context: Context) -> str:
    """The day whose data is meant. It names the run, so a guess would buy twice."""
    ds = context["params"].get("ds")
    if ds:
        return str(ds)
    moment: datetime | None = context["dag_run"].logical_date
    if moment is None:
        raise AirflowFailException("this run has no logical date; trigger it with the parameter ds, such as 2026-11-20")
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def judged(code: int, last: str) -> dict[str, Any]:
    """The summary, or the exception that tells Airflow whether to try again."""
    try:
        summary: dict[str, Any] = json.loads(last)
    except ValueError:
        summary = {"reason": last.strip()}
    if code == 0:
        return summary
    said = f"batchrunner ended with {code}: {summary.get('reason')}"
    if code == SKIP:
        raise AirflowSkipException(said)
    if code in NO_RETRY:
        raise AirflowFailException(said)
    raise AirflowException(said)


@dag(
    dag_id="enrichment",
    schedule="15 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"ds": Param(None, type=["null", "string"], format="date", description="the day; else the logical date's")},
    default_args={"retries": 5, "retry_delay": RETRY_DELAY, "execution_timeout": EXECUTION_TIMEOUT},
)
def enrichment() -> None:
    plan = Batchrunner(task_id="plan", words=["plan", *ASKED, "--show", "0"])
    run = ["run", *ASKED, "--deadline", DEADLINE, "--wait-lock", WAIT_LOCK, "--grace", GRACE, "--max-failed", "1%"]
    shards = Batchrunner.partial(
        task_id="shard", words=[*run, "--skip-exit-code", str(SKIP), "--progress-every", "60s"]
    ).expand(more=[["--shard", f"{index}/{SHARDS}"] for index in range(SHARDS)])
    merge = Batchrunner(task_id="merge", words=["merge", RUN])
    plan >> shards >> merge


enrichment()
