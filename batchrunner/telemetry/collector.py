"""Which OpenTelemetry collector a run tells, as the job and the standard variables say."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNALS = ("traces", "metrics")
PROTOCOL = "http/protobuf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """Where each signal goes; None: nowhere."""

    traces: str | None
    metrics: str | None
    trace_headers: Mapping[str, str]
    metric_headers: Mapping[str, str]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Header values: what lets us in is among them."""
        return tuple({*self.trace_headers.values(), *self.metric_headers.values()})


def find_collector(endpoint: str | None, environ: Mapping[str, str]) -> tuple[Collector | None, str | None]:
    """The collector, if there is to be one, and what its user should know. Raises JobError.

    A job that names one needs the packages; variables that somebody set for the whole machine ask for nothing.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None, None
    traces, metrics = (_address(signal, endpoint, environ) for signal in SIGNALS)
    if traces is None and metrics is None:
        return None, None
    if not _installed():
        lack = "needs OpenTelemetry, which is not installed: pip install 'batchrunner[otel]'"
        if endpoint is not None:
            raise JobError(f"telemetry.otlp_endpoint {lack}")
        return None, f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {lack}; nothing is exported"
    protocol = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or PROTOCOL
    if endpoint is None and protocol != PROTOCOL:
        return None, f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, {PROTOCOL!r} alone is spoken; nothing is exported"
    trace_headers, metric_headers = (_headers(signal, environ) for signal in SIGNALS)
    return Collector(traces=traces, metrics=metrics, trace_headers=trace_headers, metric_headers=metric_headers), None


def _address(signal: str, endpoint: str | None, environ: Mapping[str, str]) -> str | None:
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    if endpoint is None and own:
        return own
    base = endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return f"{base.rstrip('/')}/v1/{signal}" if base else None


def _headers(signal: str, environ: Mapping[str, str]) -> dict[str, str]:
    """`name=value,name=value`, percent-encoded, as the standard variables have them."""
    text = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {name.strip().lower(): unquote(value.strip()) for name, equals, value in pairs if equals and name.strip()}


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
