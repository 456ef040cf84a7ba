"""Spans, kept in memory and written as OTLP JSON lines, the format that a collector's `otlpjsonfile` receiver reads.

A process that ends loses nothing that was drained before; what exceeds the bound is counted, not kept.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MAX_SPANS = 100_000
_SCOPE = "turncoat"
_PROPAGATOR = TraceContextTextMapPropagator()


class _Buffer(SpanProcessor):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[ReadableSpan] = []
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            if len(self._spans) < MAX_SPANS:
                self._spans.append(span)
            else:
                self.dropped += 1

    def drain(self) -> list[ReadableSpan]:
        with self._lock:
            spans, self._spans = self._spans, []
        return spans


class Telemetry:
    """The tracer of one process or actor. Disabled, every span is free."""

    def __init__(self, service: str, *, enabled: bool = True) -> None:
        self._buffer = _Buffer()
        self.enabled = enabled
        provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
        provider.add_span_processor(self._buffer)
        self._resource = provider.resource
        self._tracer = provider.get_tracer(_SCOPE)

    @contextmanager
    def span(
        self, name: str, attributes: Mapping[str, str | int | float] | None = None, parent: Context | None = None
    ) -> Iterator[Span | None]:
        """Record a span around a block; an exception marks it as failed. `parent` defaults to the current span."""
        if not self.enabled:
            yield None
            return
        with self._tracer.start_as_current_span(name, context=parent, attributes=attributes) as span:
            yield span

    def drain(self) -> str:
        """Return the finished spans as one OTLP JSON line with its newline, or an empty string; forgets them."""
        spans = self._buffer.drain()
        return otlp_line(spans, self._resource.attributes) + "\n" if spans else ""

    @property
    def dropped(self) -> int:
        """Spans that exceeded the bound."""
        return self._buffer.dropped


def outgoing() -> tuple[tuple[str, str], ...]:
    """Return call metadata that carries the current span (W3C `traceparent`)."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())


def incoming(metadata: Sequence[tuple[str, str | bytes]] | None) -> Context:
    """Return the context that a caller put into its call metadata."""
    return _PROPAGATOR.extract({key: str(value) for key, value in metadata or ()}, context=otel_context.Context())


def otlp_line(spans: Sequence[ReadableSpan], resource: Mapping[str, Any]) -> str:
    """Return `spans` as one OTLP `TracesData` message in JSON: ids in hex, nanoseconds as strings."""
    scope = {"scope": {"name": _SCOPE}, "spans": [_span(span) for span in spans]}
    document = {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}
    return json.dumps(document, separators=(",", ":"))


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    record: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
    }
    if span.parent is not None:
        record["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.status.status_code is not StatusCode.UNSET:
        record["status"] = {"code": span.status.status_code.value, "message": span.status.description or ""}
    return record


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in sorted(values.items())]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
