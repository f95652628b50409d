"""The units in `jobs/`: what schedulers other than cron are told, held against the program and their own rules."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from real import needs

from batchrunner import spec
from batchrunner.cli import merge, options, plan, run

JOBS = Path(__file__).parents[2] / "jobs"
SERVICE, TIMER = (JOBS / "systemd" / f"batchrunner-nightly.{kind}" for kind in ("service", "timer"))
LOOK = {2, 3, 10, 12, 13, 17}
"""Codes after which somebody has to look before the same command can get further."""


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((JOBS / "kubernetes" / "indexed-job.yaml").read_text()))


def service() -> dict[str, list[str]]:
    """The settings of the service, each with all its values."""
    lines = [line for line in SERVICE.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


def airflow_constant(name: str) -> Any:
    tree = ast.parse((JOBS / "airflow_dag.py").read_text())
    values = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return ast.literal_eval(values[name])


def shards_of(job: dict[str, Any]) -> list[str]:
    return job["spec"]["template"]["spec"]["containers"][0]["args"]


def test_all_schedulers_give_up_after_the_same_codes():
    _, shards, merging = kubernetes()
    rules = {rule["action"]: rule for rule in shards["spec"]["podFailurePolicy"]["rules"]}

    assert set(rules["FailJob"]["onExitCodes"]["values"]) == LOOK
    assert set(rules["Count"]["onExitCodes"]["values"]) == LOOK | {0}
    assert rules["Count"]["onExitCodes"]["operator"] == "NotIn"
    assert set(map(int, service()["RestartPreventExitStatus"][0].split())) == LOOK
    assert airflow_constant("NO_RETRY") == LOOK
    assert airflow_constant("SKIP") not in options.OWN_CODES
    assert set(merging["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]) <= LOOK


@pytest.mark.parametrize(
    "file", ["airflow_dag.py", "systemd/batchrunner-nightly.service", "kubernetes/indexed-job.yaml"]
)
def test_they_use_options_that_exist(file: str):
    code = "\n".join(line.partition("# ")[0] for line in (JOBS / file).read_text().splitlines())
    known = {name for command in (run, plan, merge) for option in command.command.params for name in option.opts}

    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code.partition('"""\n\nfrom')[2] or code))

    assert used
    assert used - known == set()


def test_kubernetes_kills_only_what_has_drained():
    for job in kubernetes()[1:]:
        pod = job["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > 25 + 30
    words = dict(word[2:].split("=", 1) for word in shards_of(kubernetes()[1]) if "=" in word)
    clocks = [words[name] for name in ("wait-lock", "deadline", "grace")]
    assert sum(map(spec.parse_duration, clocks)) < kubernetes()[1]["spec"]["activeDeadlineSeconds"]


def test_kubernetes_takes_each_index_as_a_shard():
    _, shards, merging = kubernetes()

    assert shards["spec"]["completionMode"] == "Indexed"
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{shards['spec']['completions']}" in shards_of(shards)
    out = next(word.removeprefix("--out=") for word in shards_of(shards) if word.startswith("--out="))
    assert shards_of(merging)[:2] == ["merge", out]
    assert merging["spec"]["suspend"] is True


def test_kubernetes_own_rules_for_failure_policies_hold():
    """What its API server refuses, although the schema allows it."""
    for job in kubernetes()[1:]:
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert job["spec"].get("podReplacementPolicy", "Failed") == "Failed"
        names = {container["name"] for container in job["spec"]["template"]["spec"]["containers"]}
        for rule in job["spec"]["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes")
            assert (codes is None) == ("onPodConditions" in rule)
            if codes:
                assert codes["containerName"] in names
                assert codes["values"] == sorted(set(codes["values"]))
                assert codes["operator"] == "NotIn" or 0 not in codes["values"]
    assert "backoffLimitPerIndex" not in kubernetes()[2]["spec"]


def test_systemd_kills_only_what_has_drained():
    known = service()

    assert known["KillSignal"] == ["SIGTERM"]
    assert int(known["TimeoutStopSec"][0]) > 25 + 30
    assert "--grace 25s" in known["ExecStart"][0]
    assert known["SuccessExitStatus"] == ["143"]


def test_systemd_says_that_its_units_are_sound(tmp_path: Path):
    command = [needs.systemd_analyze(), "verify", str(SERVICE), str(TIMER)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    broken = tmp_path / SERVICE.name
    broken.write_text(SERVICE.read_text().replace("KillSignal=SIGTERM", "KilSignal=SIGTERM"))
    assert "KilSignal" in subprocess.run([command[0], "verify", broken], capture_output=True, text=True).stderr


def test_systemd_exposes_little_of_the_machine():
    command = [needs.systemd_analyze(), "security", "--offline=yes", "--threshold=20", str(SERVICE)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert said.returncode == 0, said.stdout


def test_the_timer_starts_the_service():
    parsed = configparser.ConfigParser()
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(TIMER)

    assert parsed["Timer"]["OnCalendar"] == "*-*-* 01:15:00"
    assert TIMER.stem == SERVICE.stem  # Without Unit= a timer starts the service of its own name.
