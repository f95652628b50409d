"""Every benchmark still runs, on figures too small to mean anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import servers
from real.needs import lacking

HERE = Path(__file__).parent
TINY = {
    "cost.py": ["--rounds", "1", "--requests", "300", "--level", "100", "--only", "bare", "--only", "batchrunner"],
    "crowd.py": ["--rounds", "1", "--rows", "400", "--in-flight", "200", "--seconds", "0.2"],
    "rates.py": ["--rounds", "1", "--rows", "400"],
    "scale.py": ["--rows", "3000"],
    "scaleout.py": ["--rounds", "1", "--rows", "400"],
    "startup.py": ["--rounds", "1"],
}


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", TINY)
def test_a_benchmark_prints_its_table(script):
    if missing := servers.lacks():
        lacking("nginx", missing)

    printed = run(script, *TINY[script])

    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in printed
    assert sum(character.isdigit() for character in printed) > 20


def test_every_benchmark_is_tried():
    scripts = {path.name for path in HERE.glob("*.py") if "\ndef main()" in path.read_text()}
    assert scripts == set(TINY)
