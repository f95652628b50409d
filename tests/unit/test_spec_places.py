"""Where a run lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.spec import InputSpec, JobSpec, OutputSpec, Shard, TelemetrySpec, for_rows, metrics_file, run_dir


def nightly(**changed: Any) -> JobSpec:
    parts: dict[str, Any] = {"name": "triage", "input": InputSpec(path="rows.jsonl"), "base": Path("jobs")}
    return JobSpec(**parts | {"path": Path("jobs/nightly.toml")} | changed)


BY_DATE: dict[str, Any] = {"params": {"ds": "2026-11-20", "x": "y"}, "params_in_input": ("ds",)}


@pytest.mark.parametrize(
    ("spec", "options", "directory"),
    [
        (nightly(), {}, "jobs/runs/triage"),
        (nightly(**BY_DATE), {}, "jobs/runs/triage/ds=2026-11-20"),
        (nightly(**BY_DATE), {"runs_dir": "/r"}, "/r/triage/ds=2026-11-20"),
        (nightly(runs_dir="/env"), {}, "/env/triage"),
        (nightly(runs_dir="/env"), {"runs_dir": "/flag"}, "/flag/triage"),
        (nightly(output=OutputSpec(dir="../out/x")), {}, "jobs/../out/x"),
        (nightly(output=OutputSpec(dir="/out/x"), runs_dir="/env"), {}, "/out/x"),
        (nightly(output=OutputSpec(dir="/out/x")), {"runs_dir": "/flag"}, "/flag/triage"),
        (nightly(output=OutputSpec(dir="/out/x")), {"runs_dir": "/flag", "out": "mine"}, "mine"),
        (nightly(), {"shard": Shard(index=0, count=4)}, "jobs/runs/triage/shard-0-of-4"),
        (nightly(), {"simulate": True}, "jobs/runs/triage.simulated"),
        (nightly(**BY_DATE), {"simulate": True}, "jobs/runs/triage/ds=2026-11-20.simulated"),
        (
            nightly(),
            {"simulate": True, "shard": Shard(index=1, count=2), "out": "mine"},
            "mine.simulated/shard-1-of-2",
        ),
        (for_rows("data/prompts.jsonl"), {}, "data/runs/prompts"),
        (for_rows("prompts.jsonl"), {}, "runs/prompts"),
        (for_rows("data/*/part-*.jsonl"), {}, "data/runs/part-_"),
        (for_rows("data/a?/x.jsonl"), {}, "data/runs/x"),
        (for_rows("-"), {}, "runs/stdin"),
    ],
)
def test_a_run_lives_where_the_job_or_the_flags_say(spec, options, directory):
    assert run_dir(spec, **options) == Path(directory)


def test_the_working_directory_can_be_a_simulated_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run_dir(nightly(), out=".", simulate=True) == tmp_path.with_name(f"{tmp_path.name}.simulated")


def test_a_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")

    assert run_dir(nightly(output=OutputSpec(dir="~/out"))) == Path("/home/me/out")


def test_several_parameters_make_one_step():
    spec = nightly(params={"ds": "1", "region": "eu"}, params_in_input=("region", "ds"))

    assert run_dir(spec) == Path("jobs/runs/triage/region=eu,ds=1")


@given(first=st.text(min_size=1), second=st.text(min_size=1))
def test_different_values_of_a_parameter_have_different_directories(first, second):
    places = [
        run_dir(nightly(params={"ds": value}, params_in_input=("ds",)), runs_dir="/r") for value in (first, second)
    ]

    assert (places[0] == places[1]) is (first == second)
    assert all(place.parent == Path("/r/triage") and len(place.name.encode()) < 220 for place in places)


@pytest.mark.parametrize(
    ("written", "shard", "path"),
    [
        (None, None, None),
        ("a.prom", None, "jobs/a.prom"),
        ("/var/a.prom", None, "/var/a.prom"),
        ("a.prom", Shard(index=1, count=3), "jobs/a-shard-1-of-3.prom"),
    ],
)
def test_metrics_go_beside_the_job_or_where_it_says_and_each_shards_apart(written, shard, path):
    found = metrics_file(nightly(telemetry=TelemetrySpec(metrics_file=written)), shard)

    assert found == (None if path is None else Path(path))
