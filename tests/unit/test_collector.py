"""Which collector is told: the job's, that of the standard variables, or none."""

from __future__ import annotations

import sys

import pytest

from batchrunner.errors import JobError
from batchrunner.telemetry import collector, find_collector

URL = "http://127.0.0.1:4318"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages were there, which only CI has."""
    monkeypatch.setattr(collector, "_installed", lambda: True)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("endpoint", "environ", "traces", "metrics"),
    [
        (URL, {}, f"{URL}/v1/traces", f"{URL}/v1/metrics"),
        (URL, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}, f"{URL}/v1/traces", f"{URL}/v1/metrics"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{URL}/"}, f"{URL}/v1/traces", f"{URL}/v1/metrics"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, "http://t/x", None),
        (URL, {"OTEL_TRACES_EXPORTER": "none"}, None, f"{URL}/v1/metrics"),
    ],
)
def test_the_job_comes_first_then_the_variables(endpoint, environ, traces, metrics):
    found, lack = find_collector(endpoint, environ)

    assert lack is None
    assert found is not None
    assert (found.traces, found.metrics) == (traces, metrics)


@pytest.mark.parametrize("environ", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}])
def test_by_default_and_when_it_is_disabled_nobody_is_told(environ):
    assert find_collector(None, environ) == (None, None)


@pytest.mark.usefixtures("_installed")
def test_headers_come_from_the_variables_decoded_and_are_secrets():
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20a%3D, x-team = cx ,odd"}

    found, _ = find_collector(URL, {**environ, "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key=k"})

    assert found is not None
    assert found.trace_headers == {"authorization": "Basic a=", "x-team": "cx"}
    assert found.metric_headers == {"api-key": "k"}
    assert sorted(found.secrets) == ["Basic a=", "cx", "k"]


@pytest.mark.usefixtures("_installed")
def test_another_protocol_of_the_whole_machine_is_left_to_others():
    found, lack = find_collector(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})

    assert found is None
    assert "'grpc'" in str(lack)


def test_without_the_packages_a_job_is_at_fault_and_a_variable_is_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(JobError, match=r"pip install 'batchrunner\[otel\]'"):
        find_collector(URL, {})

    assert "nothing is exported" in str(find_collector(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL})[1])
