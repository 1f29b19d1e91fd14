"""Spans of requests for an OpenTelemetry collector, through the extra `otel`.

A span is made when its request has been answered, from the times that are known by then, and
put into a queue; the library's own thread sends the queue's content away. A collector that
does not answer costs spans and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from omnivec.core.nouns import Result, Timing
from omnivec.server.door import LONGEST_NAME, Visit

log = logging.getLogger("omnivec.tracing")

INSTALL = "pip install 'omnivec[otel]'"
PATH = "/v1/traces"
FLUSH = 3.0
"""Seconds that a stopping server gives to what was not sent yet."""
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent:
    """The caller's span, out of a `traceparent`."""

    __slots__ = ("flags", "span", "trace")

    def __init__(self, trace: int, span: int, flags: int) -> None:
        self.trace = trace
        self.span = span
        self.flags = flags


def parent(header: str) -> Parent | None:
    """The caller's span as W3C's Trace Context writes it (level 1, 3.2); None when there is
    none or it breaks a rule. A later version may say more behind what the first one knows."""
    found = _PARENT.fullmatch(header)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace, span = int(found[2], 16), int(found[3], 16)
    return Parent(trace, span, int(found[4], 16)) if trace and span else None


def start(endpoint: str | None, version: str) -> Tracing | None:
    """Tracing to that collector (its address, with or without /v1/traces). None, with a
    warning in the log where one was asked for, when there is none or it cannot be used."""
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        log.warning("otel_endpoint must be http://HOST:4318 or https://...; tracing is off")
        return None
    try:
        return Tracing(endpoint.rstrip("/").removesuffix(PATH) + PATH, version)
    except ImportError:
        log.warning("otel_endpoint is set, but tracing is off: it needs %s", INSTALL)
        return None


class Tracing:
    """Makes the spans of one server; `url` takes OTLP over HTTP. Raises ImportError."""

    def __init__(self, url: str, version: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `Exporter` says it once
        own = Resource({"service.name": "omnivec", "service.version": version})
        resource = own.merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = Exporter(OTLPSpanExporter(url))
        self._processor = BatchSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("omnivec", version)
        self._trace = trace

    def note(
        self, visit: Visit, template: str, request: str, status: int, seconds: float
    ) -> str | None:
        """A request was answered just now, `seconds` after it came. The trace's id, 32 hex
        digits; None when there is no trace."""
        try:
            return self._note(visit, template, request, status, seconds)
        except Exception:
            log.exception("a span could not be made")
            return None

    async def close(self) -> None:
        """Send what is left, within FLUSH seconds."""
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, FLUSH)
        self._exporter.shutdown()  # the library would wait for 30 seconds

    def _note(
        self, visit: Visit, template: str, request: str, status: int, seconds: float
    ) -> str | None:
        trace, method, result = self._trace, visit.call.method, visit.result
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{method} {template}",
            self._context(visit.call.headers.get("traceparent", "")),
            kind=trace.SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            attributes={
                "http.request.method": method,
                "http.route": template,
                "http.response.status_code": status,
                "omnivec.dialect": visit.dialect.name,
                "omnivec.request_id": request,
                **_work(visit, result),
            },
        )
        # the answer need not wait for the rest
        asyncio.get_running_loop().call_soon(self._finish, span, status, result, end)
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    def _finish(self, span: Any, status: int, result: Result | None, end: int) -> None:
        if span.is_recording():
            if status >= 500:  # noqa: PLR2004 - the server's own failures
                span.set_status(self._trace.StatusCode.ERROR)
            if result is not None and result.outputs:
                self._phases(span, result.timing, end)
        span.end(end)

    def _phases(self, span: Any, timing: Timing, end: int) -> None:
        """Children, one behind the other. They are those of the request's slowest item, and
        the answer is written soon after they end."""
        context = self._trace.set_span_in_context(span)
        known = (timing.prepare, timing.queue, timing.inference)
        at = end - int(max(timing.total, sum(known)) * 1e9)
        at = max(at, span.start_time)
        for name, seconds in zip(("prepare", "queue", "inference"), known, strict=True):
            until = min(at + int(seconds * 1e9), end)
            self._tracer.start_span(name, context, start_time=at).end(until)
            at = until

    def _context(self, header: str) -> Any:
        found = parent(header) if header else None
        if found is None:
            return self._trace.set_span_in_context(self._trace.INVALID_SPAN)
        caller = self._trace.SpanContext(
            found.trace, found.span, is_remote=True, trace_flags=self._trace.TraceFlags(found.flags)
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(caller))


class Exporter:
    """The library's exporter, that says once when it fails and once when it works again."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._works = True
        self._ended = False

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._inner.export(spans)
        works = result.name == "SUCCESS"
        if works is not self._works and not self._ended:
            self._works = works
            if works:
                log.info("the collector takes spans again")
            else:
                log.warning("the collector takes no spans; until it does they are lost")
        return result

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return bool(self._inner.force_flush(timeout_millis))


def _work(visit: Visit, result: Result | None) -> dict[str, Any]:
    if result is None or not result.outputs:
        name = visit.model
        return {"omnivec.model": name[:LONGEST_NAME]} if name else {}
    return {
        "omnivec.model": result.card.name,
        "omnivec.items": result.usage.items,
        "omnivec.tokens": result.usage.tokens,
    }
