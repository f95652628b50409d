"""What the real servers need: without it a test by hand is skipped, and in CI it fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def lacking(what: str, how: str) -> NoReturn:
    said = f"{what} is missing; {how}"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


def llmock() -> str:
    """aimock's command, from the folder that .ci/run installs it to, else from PATH."""
    local = ROOT / ".node" / "node_modules" / ".bin" / "llmock"
    found = str(local) if local.exists() else shutil.which("llmock")
    if found is None:
        lacking("llmock", "npm install --prefix .node @copilotkit/aimock")
    return found


def azurite() -> str:
    """Azurite's command, from the folder that .ci/run installs it to, else from PATH."""
    local = ROOT / ".node" / "node_modules" / ".bin" / "azurite-blob"
    found = str(local) if local.exists() else shutil.which("azurite-blob")
    if found is None:
        lacking("azurite-blob", "npm install --prefix .node azurite")
    return found


def to_be_collected(name: str, how: str) -> None:
    """At the head of a module that imports `name`: the default suite collects it too, before CI has installed that."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is missing; {how}", allow_module_level=True)


def package(name: str, how: str) -> None:
    if importlib.util.find_spec(name) is None:
        lacking(name, how)


def llama_cpp() -> None:
    for package in ("gguf", "xllamacpp"):
        if importlib.util.find_spec(package) is None:
            lacking(package, "pip install 'batchrunner[real]'")


def airflow() -> Path:
    """The folder with airflow's commands, of the environment of its own that .ci/run makes."""
    local = ROOT / ".airflow" / "bin"
    if not (local / "airflow").exists():
        lacking("airflow", "python3 -m venv .airflow && .airflow/bin/pip install apache-airflow==3.3.2")
    return local


def otel() -> None:
    for package in ("opentelemetry.exporter.otlp.proto.http", "prometheus_client"):
        if not _there(package):
            lacking(package, "pip install 'batchrunner[otel]'")


def _there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def prometheus(name: str) -> str:
    """A command of Debian's packages, from the folder that .ci/run unpacks them to, else from PATH."""
    local = ROOT / ".tools" / "usr" / "bin" / name
    found = str(local) if local.exists() else shutil.which(name)
    if found is None:
        lacking(name, "apt-get install prometheus prometheus-node-exporter")
    return found


def kubernetes_models() -> Path:
    """The folder of node packages that has the schemas of Kubernetes."""
    if shutil.which("node") is None or not (ROOT / ".node" / "node_modules" / "kubernetes-models").exists():
        lacking("kubernetes-models", "npm install --prefix .node kubernetes-models")
    return ROOT / ".node"


def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        lacking("systemd-analyze", "apt-get install systemd")
    return found


def chromium() -> str:
    """The browser, and what draws the charts of the page that is opened in it."""
    for package in ("altair", "vl_convert"):
        if not _there(package):
            lacking(package, "pip install 'batchrunner[report]'")
    found = shutil.which("chromium")
    if found is None:
        lacking("chromium", "apt-get install chromium")
    return found


def ray() -> None:
    if importlib.util.find_spec("ray") is None:
        lacking("ray", "pip install 'batchrunner[ray]'")
