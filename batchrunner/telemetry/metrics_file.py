"""A run in Prometheus's text format, for the textfile collector of node_exporter."""

from __future__ import annotations

import contextlib
import os
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    Rows = Mapping[Any, float]
    """Numbers by the values of their labels, a tuple."""

STATES = ("running", "finished", "drained", "stopped", "failed")
READABLE = 0o644
"""Whoever collects it is somebody else than whoever runs the job."""


def check_metrics_file() -> None:
    """Raises JobError where the package that writes the format is missing."""
    if find_spec("prometheus_client") is None:
        raise JobError(
            "telemetry.metrics_file needs prometheus-client, which is not installed: pip install 'batchrunner[otel]'"
        )


class MetricsFile:
    """Replaced whole at every call. What keeps it from being written is told once, and ends nothing."""

    def __init__(self, path: Path, *, tell: Callable[[str], None] = lambda _: None) -> None:
        self._path, self._tell, self._told = path, tell, False

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Say what `run.json` says, or the summary of an invocation that failed before there was one."""
        try:
            _replace(self._path.resolve(), rendered(manifest))
        except (OSError, RuntimeError) as error:  # The latter: links in a circle.
            if not self._told:
                self._told = True
                why = (getattr(error, "strerror", None) or str(error)).lower()
                self._tell(f"{self._path}: {why}; metrics are not written, the run goes on")


def _replace(path: Path, text: bytes) -> None:
    """Not synced: after a power cut nobody needs these figures."""
    if path.exists() and not path.is_file():
        raise OSError("no regular file")
    # The collector takes what ends in .prom.
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(text)
        beside.chmod(READABLE)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def rendered(manifest: Mapping[str, Any]) -> bytes:
    """The metrics of a manifest as text."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Manifest(manifest))  # type: ignore[arg-type, unused-ignore]
    text: bytes = generate_latest(registry)
    return text


class _Manifest:
    """Collected by a registry of its own: nothing of this process but what the manifest says."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._manifest = manifest
        run = manifest["run"] if "://" in manifest["run"] else Path(manifest["run"]).absolute()
        self._names, self._values = ["run", "name"], [_text(run), _text(manifest["name"])]

    def collect(self) -> Iterator[Metric]:
        yield self._info()
        yield from self._ending()
        if "items" in self._manifest:
            yield from self._counters()
            yield from self._gauges()

    def _info(self) -> Metric:
        manifest = self._manifest
        labels = {"version": manifest.get("version", ""), **_labels(manifest.get("labels") or {})}
        with contextlib.suppress(KeyError):
            labels["provider"] = manifest["job"]["provider"]["kind"]
        rows = {tuple(labels.values()): 1.0}
        return self._gauge("run_info", "What the job says of itself; label_NAME is its label NAME.", rows, *labels)

    def _ending(self) -> Iterator[Metric]:
        manifest = self._manifest
        state = manifest.get("state", "failed")
        rows = {(each,): float(each == state) for each in STATES}
        yield self._gauge("state", "1 for the state the run is in.", rows, "state")
        yield self._gauge("heartbeat_timestamp_seconds", "When this was written.", {(): time.time()})
        if manifest.get("exit") is not None:
            yield self._gauge("exit_code", "How the last invocation ended; none while it runs.", {(): manifest["exit"]})

    def _counters(self) -> Iterator[Metric]:
        now = self._manifest["now"]
        yield self._counter("requests", "Requests sent.", {(): now["sent"]})
        tokens = {("prompt",): now["prompt_tokens"], ("completion",): now["completion_tokens"]}
        yield self._counter("tokens", "Tokens used, those of failed attempts included.", tokens, "type")
        if now["cost_usd"] is not None:
            yield self._counter("cost_usd", "US dollars spent; none while a price is unknown.", {(): now["cost_usd"]})
        billed = {(): now["possibly_billed"]}
        yield self._counter("possibly_billed_requests", "Requests that went out whole and brought no answer.", billed)
        failures = {(kind,): count for kind, count in now["failed_by_type"].items()}
        yield self._counter("failed_items", "Items that failed, by error type.", failures, "error_type")
        yield self._counter("throttled", "Replies with status 429.", {(): self._manifest["throttled"]})
        yield self._counter("run_seconds", "Time spent running.", {(): now["seconds"]})

    def _gauges(self) -> Iterator[Metric]:
        manifest, items = self._manifest, self._manifest["items"]
        outcomes = {(each,): items[each] for each in ("succeeded", "rejected", "exhausted", "unfinished")}
        yield self._gauge("items", "Items of the run by outcome, earlier invocations included.", outcomes, "outcome")
        yield self._gauge("requests_in_flight", "Requests in flight.", {(): manifest.get("in_flight", 0)})
        rate = {(): manifest.get("per_minute") or 0.0}
        yield self._gauge("requests_per_minute", "Requests of the last minute.", rate)
        if manifest.get("limit_per_minute"):
            limit = {(): manifest["limit_per_minute"]}
            yield self._gauge("requests_per_minute_limit", "What is kept to; none where nothing limits.", limit)
        if manifest.get("left_s") is not None:
            yield self._gauge("left_seconds", "To the end, at the present rate.", {(): manifest["left_s"]})

    def _gauge(self, name: str, says: str, rows: Rows, *labels: str) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        return self._filled(GaugeMetricFamily(f"batchrunner_{name}", says, labels=[*self._names, *labels]), rows)

    def _counter(self, name: str, says: str, rows: Rows, *labels: str) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        says = f"{says} Since the invocation began."
        return self._filled(CounterMetricFamily(f"batchrunner_{name}", says, labels=[*self._names, *labels]), rows)

    def _filled(self, family: Any, rows: Rows) -> Metric:
        for values, number in rows.items():
            family.add_metric([*self._values, *map(_text, values)], float(number))
        metric: Metric = family
        return metric


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The job's labels under names that Prometheus takes."""
    return {"label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name): value for name, value in labels.items()}


def _text(value: object) -> str:
    """What UTF-8 cannot say, such as an odd file name, is marked."""
    return str(value).encode("utf-8", "replace").decode()
