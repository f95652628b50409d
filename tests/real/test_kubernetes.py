"""`jobs/kubernetes` held against the schemas of Kubernetes itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from real import needs

pytestmark = pytest.mark.real

MANIFEST = Path(__file__).parents[2] / "jobs" / "kubernetes" / "indexed-job.yaml"


def faults(objects: list[dict[str, Any]]) -> list[str]:
    command = ["node", Path(__file__).with_name("kubernetes_schema.mjs"), needs.kubernetes_models()]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_manifest_fits_the_schemas():
    objects = list(yaml.safe_load_all(MANIFEST.read_text()))

    assert [each["kind"] for each in objects] == ["PersistentVolumeClaim", "Job", "Job"]
    assert faults(objects) == []


def test_the_check_finds_what_is_wrong():
    _, job, _ = yaml.safe_load_all(MANIFEST.read_text())
    pod = job["spec"]["template"]["spec"]
    job["spec"]["completionModes"] = job["spec"].pop("completionMode")
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["operator"] = "Inn"
    pod["terminationGracePeriodSeconds"] = "90s"
    pod["containers"][0]["volumeMounts"][1]["readonly"] = True

    assert sorted(faults([job])) == [
        "Job.spec.completionModes: no such field",
        "Job.spec.template.spec.containers[0].volumeMounts[1].readonly: no such field",
        "Job/spec/podFailurePolicy/rules/0/onExitCodes/operator: enum",
        "Job/spec/template/spec/terminationGracePeriodSeconds: type",
    ]
