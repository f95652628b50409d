"""Metrics of every attempt, and spans of some, by the GenAI semantic conventions. No prompt, no reply, no key."""

from __future__ import annotations

import logging
import os
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrunner import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from batchrunner.errors import RequestError
    from batchrunner.records import Completion, Request
    from batchrunner.telemetry.collector import Collector

LONGEST_S = 5.0
"""By which a collector may delay the end of a run."""
SEND_S = 4.0
"""For one export, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise."""
MOST_KINDS = 1_000
"""Of attempts told apart by model and error; what comes beyond is told without its models."""
TOKEN_BUCKETS = [4**power for power in range(14)]
SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]
PROVIDER_NAMES = {"azure": "azure.ai.openai"}
"""Where the conventions have a name for a dialect that is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is the same for all attempts of a run."""

    name: str
    run: str
    provider: str
    base_url: str
    labels: Mapping[str, str] = field(default_factory=dict)
    sample: float = 0.01
    """The share of the attempts that came through which get a span; those that failed all do."""

    def attributes(self) -> dict[str, Any]:
        url = urlsplit(self.base_url)
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER_NAMES.get(self.provider, self.provider),
            "server.address": url.hostname or "",
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }


class _Kind:
    """The attributes of all attempts that are alike in model and error: made once, for each takes its time."""

    __slots__ = ("attributes", "of_input", "of_output")

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.of_input = {**attributes, "gen_ai.token.type": "input"}
        self.of_output = {**attributes, "gen_ai.token.type": "output"}


class Attempts:
    """Hears of every attempt. Returns at once: what it is told is sent from threads of its own."""

    def __init__(
        self,
        about: About,
        meters: MeterProvider,
        tracers: TracerProvider,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._sample, self._chance, self._kind = about.sample, chance, SpanKind.CLIENT
        self._plain = about.attributes()
        self._kinds: dict[tuple[str | None, ...], _Kind] = {}
        meter = meters.get_meter("batchrunner", __version__)
        self._seconds = meter.create_histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used."
        )
        self._tracer = tracers.get_tracer("batchrunner", __version__)
        own = {"batchrunner.name": about.name, "batchrunner.run": about.run}
        labels = {f"batchrunner.label.{name}": value for name, value in about.labels.items()}
        self._run = self._tracer.start_span(f"run {about.name}", attributes={**own, **labels})
        self._in_run = set_span_in_context(self._run)
        self._exit = 1

    def answered(self, request: Request, completion: Completion, *, item_id: str, seconds: float) -> None:
        usage = completion.usage
        kind = self._of_kind(request.model, completion.model)
        self._count(kind, seconds, usage.prompt_tokens, usage.completion_tokens)
        if self._chance() < self._sample:
            more = {
                "gen_ai.response.id": completion.response_id,
                "gen_ai.response.finish_reasons": [completion.finish_reason] if completion.finish_reason else None,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
            }
            self._span(request, item_id, seconds, {**kind.attributes, **more})

    def failed(self, request: Request, error: RequestError, *, item_id: str, seconds: float) -> None:
        if error.scope == "machine":
            return  # Nothing was sent.
        kind = self._of_kind(request.model, None, error.error_type)
        self._count(kind, seconds, error.prompt_tokens, error.completion_tokens)
        more = {"http.response.status_code": error.status, "batchrunner.verdict": error.verdict}
        self._span(request, item_id, seconds, {**kind.attributes, **more}, failed=True)

    def concluded(self, summary: Mapping[str, Any]) -> None:
        """How the invocation ended, for the run's own span."""
        self._exit = summary["exit"]
        for outcome, count in summary["items"].items():
            self._run.set_attribute(f"batchrunner.items.{outcome}", count)

    def close(self) -> None:
        """The end of the run's own span; without a conclusion, a bug was its end."""
        from opentelemetry.trace import StatusCode

        self._run.set_attribute("batchrunner.exit_code", self._exit)
        if self._exit:
            self._run.set_status(StatusCode.ERROR)
        self._run.end()

    def _of_kind(self, asked: str | None, answered: str | None, error_type: str | None = None) -> _Kind:
        key = (asked, answered, error_type)
        found = self._kinds.get(key)
        if found is None:
            told = len(self._kinds) < MOST_KINDS
            own = {
                "gen_ai.request.model": asked if told else None,
                "gen_ai.response.model": answered if told else None,
                "error.type": error_type,
            }
            found = _Kind({**self._plain, **{name: value for name, value in own.items() if value is not None}})
            if told:
                self._kinds[key] = found
        return found

    def _count(self, kind: _Kind, seconds: float, prompt: int | None, completion: int | None) -> None:
        self._seconds.record(seconds, kind.attributes)
        if prompt is not None:
            self._tokens.record(prompt, kind.of_input)
        if completion is not None:
            self._tokens.record(completion, kind.of_output)

    def _span(
        self, request: Request, item_id: str, seconds: float, attributes: dict[str, Any], *, failed: bool = False
    ) -> None:
        """A span that is over already: whether it is worth telling is known only now."""
        from opentelemetry.trace import StatusCode

        own = {
            "gen_ai.agent.id": request.agent_id,
            "gen_ai.conversation.id": request.session_id,
            "gen_ai.request.max_tokens": request.max_tokens,
            "batchrunner.item_id": item_id,
        }
        end = time_ns()
        span = self._tracer.start_span(
            f"chat {request.model}" if request.model else "chat",
            context=self._in_run,
            kind=self._kind,
            attributes={name: value for name, value in {**attributes, **own}.items() if value is not None},
            start_time=end - int(seconds * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(end)


@contextmanager
def exporting(collector: Collector, about: About, *, tell: Callable[[str], None]) -> Iterator[Attempts | None]:
    """Tells a collector of a run's attempts. What it refuses or is too slow for is lost, and `tell` hears it once.

    None where the standard variables make no sense to the SDK: telemetry is not worth a run.
    """
    ears = _ears(tell)
    try:
        resource = _resource(about)
        meters, tracers = _meters(collector, resource), _tracers(collector, resource)
    except ValueError as error:
        ears.say(f"a variable of OpenTelemetry: {error}")
        yield None
        return
    attempts = Attempts(about, meters, tracers)
    try:
        yield attempts
    finally:
        attempts.close()
        ending = [threading.Thread(target=each.shutdown, daemon=True) for each in (tracers, meters)]
        for thread in ending:
            thread.start()
        until = monotonic() + LONGEST_S
        for thread in ending:
            thread.join(max(0.0, until - monotonic()))
        if any(thread.is_alive() for thread in ending):
            ears.say(f"the collector did not take everything within {LONGEST_S:g} s")
        ears.close()


def _resource(about: About) -> Resource:
    """Who is telling. Every invocation is an instance of its own: shards must not be taken for one another."""
    import uuid

    from opentelemetry.sdk.resources import Resource

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "batchrunner"}
    return Resource.create(
        {
            **name,
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "batchrunner.name": about.name,
        }
    )


def _meters(collector: Collector, resource: Resource) -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

    readers = []
    if collector.metrics is not None:
        exporter = OTLPMetricExporter(collector.metrics, headers=dict(collector.metric_headers), **_manners())
        readers = [PeriodicExportingMetricReader(exporter)]
    buckets = {"gen_ai.client.token.usage": TOKEN_BUCKETS, "gen_ai.client.operation.duration": SECOND_BUCKETS}
    views = [
        View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
        for name, bounds in buckets.items()
    ]
    return MeterProvider(readers, resource=resource, views=views, shutdown_on_exit=False)


def _tracers(collector: Collector, resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    tracers = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    if collector.traces is not None:
        exporter = OTLPSpanExporter(collector.traces, headers=dict(collector.trace_headers), **_manners())
        tracers.add_span_processor(BatchSpanProcessor(exporter))
    return tracers


def _manners() -> dict[str, Any]:
    """How an exporter sends: not for long, never with a password out of .netrc, never where a redirect points to."""
    import requests

    session = requests.Session()
    session.auth = lambda request: request
    session.max_redirects = 0
    return (
        {"session": session}
        if os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT")
        else {"session": session, "timeout": SEND_S}
    )


class _Ears(logging.Handler):
    """Hears what the exporters log, so that nothing of it reaches standard error, and passes on the first of it."""

    def __init__(self) -> None:
        super().__init__()
        self._tell: Callable[[str], None] | None = None

    def listen(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.say(record.getMessage())

    def say(self, trouble: str) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(f"telemetry: {trouble[:300]}; the run goes on without")

    def close(self) -> None:
        self._tell = None
        super().close()


_EARS = _Ears()


def _ears(tell: Callable[[str], None]) -> _Ears:
    """They stay for the life of the process: an exporter that was left behind may log after our last line."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if _EARS not in logger.handlers:
        logger.addHandler(_EARS)
    _EARS.listen(tell)
    return _EARS
