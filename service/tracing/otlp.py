"""Traces as OpenTelemetry's spans, sent by its own exporter. Nothing else imports OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from service.tracing.recording import RunBatch, StageTime, Trace, make_id

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_TIMEOUT_S: Final = 5.0
_FINE: Final = Status(StatusCode.UNSET)
_FAILED: Final = Status(StatusCode.ERROR)
_NOTHING: Final[Mapping[str, str | int]] = MappingProxyType({})


class OtlpExporter:
    """Sends traces to a collector over HTTP.

    A batch is sent one export later than its first member: by then the others have come as well.

    Args:
        endpoint: Full URL, as in ``http://collector:4318/v1/traces``.
        version: Of this service.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S)
        own = Resource({"service.name": "foldserve", "service.version": version})
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        self._resource = own.merge(OTELResourceDetector().detect())
        self._scope = InstrumentationScope("foldserve", version)
        # Batch → its own span, and those of its members.
        self._batches: dict[RunBatch, tuple[SpanContext, list[Link]]] = {}
        self._epoch_ns = 0

    def export(self, traces: Sequence[Trace]) -> bool:
        """Send these, and the batches of the last time; False if they are lost."""
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        complete, self._batches = self._batches, {}
        spans = [span for trace in traces for span in self._request(trace, complete)]
        spans += [self._batch(batch, *place) for batch, place in complete.items()]
        return not spans or self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Send the last batches."""
        self.export(())
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # OpenTelemetry does not annotate it

    def _request(
        self, trace: Trace, earlier: dict[RunBatch, tuple[SpanContext, list[Link]]]
    ) -> Iterator[ReadableSpan]:
        """The request's span and its children."""
        whole = StageTime(trace.name, trace.started, trace.seconds)
        context = _context(trace.trace_id, trace.span_id)
        parent = (
            None if trace.parent_id is None else _context(trace.trace_id, trace.parent_id, is_remote=True)
        )
        status = _FAILED if trace.is_failure else _FINE
        yield self._span(whole, context, parent, trace.attributes, kind=SpanKind.SERVER, status=status)
        for stage in trace.stages:
            yield self._span(stage, _context(trace.trace_id), context)
        for batch, queue_s in trace.batches.items():
            formed = batch.started - batch.decode_s
            yield self._span(StageTime("queue", formed - queue_s, queue_s), _context(trace.trace_id), context)
            if batch.decode_s:
                decoding = StageTime("decode", formed, batch.decode_s)
                yield self._span(decoding, _context(trace.trace_id), context)
            inference = _context(trace.trace_id)
            batch_context = self._join(batch, inference, earlier)
            running = StageTime("inference", batch.started, batch.inference_s)
            yield self._span(running, inference, context, links=[Link(batch_context)])

    def _join(
        self, batch: RunBatch, member: SpanContext, earlier: dict[RunBatch, tuple[SpanContext, list[Link]]]
    ) -> SpanContext:
        """Make a span a member of a batch; the span of the batch."""
        batches = earlier if batch in earlier else self._batches
        context, members = batches.setdefault(batch, (_context(make_id(16)), []))
        members.append(Link(member))
        return context

    def _batch(self, batch: RunBatch, context: SpanContext, members: list[Link]) -> ReadableSpan:
        running = StageTime("batch", batch.started, batch.inference_s)
        attributes: Mapping[str, str | int] = {
            "foldserve.model": batch.model,
            "foldserve.batch_size": batch.size,
        }
        return self._span(running, context, None, attributes, members)

    def _span(
        self,
        stage: StageTime,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Mapping[str, str | int] = _NOTHING,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _FINE,
    ) -> ReadableSpan:
        started_ns = self._epoch_ns + round(stage.started * 1e9)
        return ReadableSpan(
            stage.name,
            context,
            parent,
            self._resource,
            attributes,
            links=links,
            kind=kind,
            status=status,
            start_time=started_ns,
            end_time=started_ns + round(stage.seconds * 1e9),
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str, span_id: str | None = None, *, is_remote: bool = False) -> SpanContext:
    """A span's identity; a new one where it has no id yet."""
    return SpanContext(int(trace_id, 16), int(span_id or make_id(8), 16), is_remote, _SAMPLED)
