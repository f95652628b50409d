"""An OTLP collector on loopback that decodes what it is sent, or misbehaves."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, kw_only=True)
class Collected:
    """What has arrived, as decoded protobuf, and raw for what must not be in it."""

    url: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    raw: bytes = b""
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0

    def spans(self) -> list[Any]:
        return [
            span for each in self.traces for resource in each.resource_spans for scope in resource.scope_spans
            for span in scope.spans
        ]  # fmt: skip

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes and the histogram of each series of the newest export."""
        return [
            (plain(point.attributes), point)
            for resource in self.metrics[-1].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.histogram.data_points
        ]

    def resource(self) -> dict[str, Any]:
        return plain(self.metrics[-1].resource_metrics[0].resource.attributes)


def plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextmanager
def collector(*, status: int = 200, delay_s: float = 0.0) -> Iterator[Collected]:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    collected = Collected()
    kinds: dict[str, tuple[Any, list[Any]]] = {
        "/v1/traces": (ExportTraceServiceRequest, collected.traces),
        "/v1/metrics": (ExportMetricsServiceRequest, collected.metrics),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            time.sleep(delay_s)
            kind, found = kinds[self.path]
            collected.requests += 1
            collected.raw += body
            collected.headers.append({name.lower(): value for name, value in self.headers.items()})
            if status == 200:
                found.append(kind.FromString(body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    collected.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collected
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by(points: list[tuple[dict[str, Any], Any]], name: str) -> dict[Any, int]:
    """How many observations there are by the value of one attribute."""
    counts: dict[Any, int] = defaultdict(int)
    for attributes, point in points:
        counts[attributes.get(name)] += point.count
    return dict(counts)
