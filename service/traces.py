"""OpenTelemetry traces: a span for each request, below it what each of its images went through.

Needs the extra `otel`; imported only when there is somewhere to send traces. The spans are made
when a request is answered, of times that are measured anyway, and sent by a background thread.
"""

import threading
import time
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.facts import Facts
from service.outcome import Outcome
from service.version import version

_CLOSE_S = 3.0
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)


class Traces:
    """Sends spans to an OTLP/HTTP collector. One that cannot be reached costs log lines only.

    The standard variables hold too: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_SCHEDULE_DELAY.
    """

    def __init__(self, endpoint: str) -> None:
        """endpoint: full address, for example http://collector:4318/v1/traces"""
        ours = Resource({"service.name": "anypool", "service.version": version()})
        self._exporter = OTLPSpanExporter(endpoint)
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("anypool", version())
        self._propagator = TraceContextTextMapPropagator()

    def request(self, facts: Facts, headers: Mapping[str, str], scheme: str) -> None:
        """Make the spans of a request that was answered, and note its trace in `facts`.

        headers: may name the span that the client waits in (W3C traceparent), whose decision on
        sampling is followed
        """
        clock = time.time_ns() - time.monotonic_ns()
        method = facts.method if facts.method in _METHODS else "HTTP"
        span = self._tracer.start_span(
            method if facts.route is None else f"{method} {facts.route}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=_request_attributes(facts, scheme),
            start_time=_ns(facts.begun, clock),
        )
        facts.trace_id = format_trace_id(span.get_span_context().trace_id)
        if not span.is_recording():
            return
        for index, outcome in enumerate(facts.outcomes):
            self._image(span, index, outcome, clock)
        if facts.status >= 500:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", str(facts.status))
        span.end(_ns(facts.ended, clock))

    def close(self) -> None:
        """Send what is left; what cannot be sent in a few seconds is lost. Blocks so long."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _image(self, parent: Span, index: int, outcome: Outcome, clock: int) -> None:
        within = set_span_in_context(parent)
        for phase in outcome.phases:
            attributes: dict[str, int] = {"anypool.image": index}
            if phase.name == "infer":
                attributes["anypool.batch.images"] = phase.batch
            span = self._tracer.start_span(
                phase.name, within, attributes=attributes, start_time=_ns(phase.begun, clock)
            )
            if outcome.error is not None and phase is outcome.phases[-1]:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", outcome.error.type)
            span.end(_ns(phase.ended, clock))


def _request_attributes(facts: Facts, scheme: str) -> dict[str, str | int]:
    """By the semantic conventions for HTTP servers, and our own."""
    known: dict[str, str | int | None] = {
        "http.request.method": facts.method if facts.method in _METHODS else "_OTHER",
        "http.route": facts.route,
        "http.response.status_code": facts.status,
        "url.path": facts.path,
        "url.scheme": scheme,
        "client.address": facts.client,
        "anypool.request_id": facts.request_id,
        "anypool.model": facts.model,
        "anypool.version": facts.version,
        "anypool.images": facts.images,
        "anypool.pixels": facts.pixels,
    }
    return {name: value for name, value in known.items() if value is not None}


def _ns(monotonic_s: float, clock: int) -> int:
    return int(monotonic_s * 1e9) + clock
