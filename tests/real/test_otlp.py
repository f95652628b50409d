"""OpenTelemetry over OTLP/HTTP: what a collector hears of a run, and what a bad one does to it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from driving import Api, Ended, api, batchrunner, prompts, write_rows
from real import needs
from real.collecting import by, collector, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

CLIENT, INTERNAL, ERROR = 3, 1, 2
SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
KEY = "sk-live-0123456789abcdef"


@pytest.fixture(autouse=True)
def _otel() -> None:
    needs.otel()


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[Api]:
    with api(tmp_path / "api.jsonl", error_rate=0.2) as server:
        yield server


def run(folder: Path, openai: Api, *more: object, telemetry: str = "", env: dict[str, str] | None = None) -> Ended:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", prompts(60, prefix="canary"))
    (folder / "job.toml").write_text(
        f"input.path = 'rows.jsonl'\nprovider = {{ kind = 'openai', base_url = '{openai.openai}' }}\n"
        f"request.model = 'gpt-4o'\nlimits = {{ concurrency = 8 }}\nlabels.team = 'cx'\n[telemetry]\n{telemetry}\n"
    )
    return batchrunner("run", folder / "job.toml", "--json", *more, env={"OPENAI_API_KEY": KEY, **(env or {})})


def log(ended: Ended) -> list[str]:
    lines = (Path(ended.summary["run"]) / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_every_attempt_is_measured_by_the_conventions(tmp_path, openai):
    with collector() as told:
        ended = run(tmp_path / "job", openai, telemetry=f"otlp_endpoint = '{told.url}'")

    seconds = told.points("gen_ai.client.operation.duration")
    tokens = told.points("gen_ai.client.token.usage")
    sent = ended.summary["now"]["sent"]
    assert ended.code == 0, ended.err
    assert sum(point.count for _, point in seconds) == sent > 60
    assert by(seconds, "error.type")[None] == 60
    assert set(by(seconds, "error.type")) <= {None, "server", "overloaded"}
    assert by(tokens, "gen_ai.token.type") == {"input": 60, "output": 60}
    used = {kind: sum(p.sum for a, p in tokens if a["gen_ai.token.type"] == kind) for kind in ("input", "output")}
    assert used == {"input": ended.summary["prompt_tokens"], "output": ended.summary["completion_tokens"]}
    assert all(list(point.explicit_bounds) == SECONDS for _, point in seconds)
    assert all(list(point.explicit_bounds) == TOKENS for _, point in tokens)
    address = openai.url.removeprefix("http://").split(":")
    for attributes, _ in [*seconds, *tokens]:
        model = attributes.pop("gen_ai.response.model", None)
        assert (model is None) == ("error.type" in attributes)
        attributes.pop("error.type", None)
        attributes.pop("gen_ai.token.type", None)
        assert attributes == {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
            "server.address": address[0], "server.port": int(address[1]),
        }  # fmt: skip
    assert told.resource()["service.name"] == "batchrunner"
    assert told.resource()["service.instance.id"]


def test_spans_are_those_of_attempts_within_that_of_the_run(tmp_path, openai):
    with collector() as told:
        ended = run(tmp_path / "job", openai, telemetry=f"otlp_endpoint = '{told.url}'\nsample = 1.0")

    spans = told.spans()
    (whole,) = [span for span in spans if not span.parent_span_id]
    attempts = [span for span in spans if span.parent_span_id]
    failed = [span for span in attempts if span.status.code == ERROR]
    assert (whole.name, whole.kind) == ("run job", INTERNAL)
    assert plain(whole.attributes)["batchrunner.exit_code"] == ended.code == 0
    assert plain(whole.attributes)["batchrunner.items.succeeded"] == 60
    assert plain(whole.attributes)["batchrunner.label.team"] == "cx"
    assert len(attempts) == ended.summary["now"]["sent"]
    assert len(attempts) - len(failed) == 60
    for span in attempts:
        assert (span.name, span.kind) == ("chat gpt-4o", CLIENT)
        assert (span.trace_id, span.parent_span_id) == (whole.trace_id, whole.span_id)
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
    for span in failed:
        facts = plain(span.attributes)
        assert facts["error.type"] in ("server", "overloaded")
        assert facts["http.response.status_code"] in (500, 503)
    answered = plain(next(span for span in attempts if span.status.code != ERROR).attributes)
    assert answered["gen_ai.usage.output_tokens"] > 0
    assert answered["gen_ai.response.finish_reasons"] == ["stop"]
    assert answered["batchrunner.item_id"].startswith("canary")


def test_nothing_of_the_prompts_the_answers_or_the_key_is_told(tmp_path, openai):
    with collector() as told:
        ended = run(tmp_path / "job", openai, telemetry=f"otlp_endpoint = '{told.url}'\nsample = 1")

    answers = [text for text in pl.read_parquet(ended.summary["results"])["text"] if text]
    assert b"canary" in told.raw  # item ids
    assert b"Say canary" not in told.raw
    assert KEY.encode() not in told.raw
    assert not [text for text in answers if text.encode() in told.raw]


def test_by_default_a_hundredth_of_the_attempts_that_came_through_gets_a_span(tmp_path, openai):
    with collector() as told:
        ended = run(tmp_path / "job", openai, telemetry=f"otlp_endpoint = '{told.url}'")

    attempts = [span for span in told.spans() if span.parent_span_id]
    failed = [span for span in attempts if span.status.code == ERROR]
    assert len(failed) == ended.summary["now"]["sent"] - 60
    assert len(attempts) - len(failed) <= 6


def test_the_standard_variables_do_too_and_their_headers_stay_secret(tmp_path, openai):
    (tmp_path / "env").write_text("OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20czNjcjN0LXRva2Vu,x-team=cx\n")
    with collector() as told, collector(status=401) as refusing:
        ended = run(
            tmp_path / "job", openai, "--env-file", tmp_path / "env",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": told.url, "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"},
        )  # fmt: skip
        refused = run(
            tmp_path / "job", openai, "--fresh", "--env-file", tmp_path / "env",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": refusing.url},
        )  # fmt: skip
        off = run(
            tmp_path / "off", openai, telemetry=f"otlp_endpoint = '{told.url}'", env={"OTEL_SDK_DISABLED": "true"}
        )
        requests = told.requests

    assert (ended.code, refused.code, off.code) == (0, 0, 0)
    assert all(headers["authorization"] == "Basic czNjcjN0LXRva2Vu" for headers in told.headers)
    assert all(headers["x-team"] == "cx" for headers in told.headers)
    assert told.resource()["deployment.environment"] == "test"
    assert requests == len(told.traces) + len(told.metrics)
    everything = refused.out + refused.err + (tmp_path / "job/runs/job/log.jsonl").read_text()
    assert "czNjcjN0" not in everything
    assert everything.count("code: 401") >= 2


@pytest.mark.parametrize("what", ["dead", "slow", "refusing"])
def test_a_collector_that_does_not_work_is_one_warning_and_costs_at_most_five_seconds(tmp_path, openai, what):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    with collector(status=503 if what == "refusing" else 200, delay_s=20 if what == "slow" else 0) as told:
        url = dead if what == "dead" else told.url
        batchrunner("run", "--help")
        began = time.monotonic()
        ended = run(tmp_path / "job", openai, telemetry=f"otlp_endpoint = '{url}'\nsample = 1")
        took_s = time.monotonic() - began

    messages = [json.loads(line) for line in ended.out.splitlines() if '"message"' in line]
    warnings = [line for line in messages if line.get("type") == "message" and "telemetry" in line["message"]]
    assert ended.code == 0
    assert len(warnings) == 1, ended.out
    assert log(ended).count("telemetry_failed") == 1
    assert ended.err == ""
    assert ended.summary["type"] == "finished"
    assert took_s - ended.summary["now"]["seconds"] < 7.5


def test_a_variable_that_makes_no_sense_is_a_warning(tmp_path, openai):
    with collector() as told:
        ended = run(
            tmp_path / "job",
            openai,
            telemetry=f"otlp_endpoint = '{told.url}'",
            env={"OTEL_METRIC_EXPORT_INTERVAL": "0"},
        )

    assert ended.code == 0, ended.err
    assert log(ended).count("telemetry_failed") == 1
