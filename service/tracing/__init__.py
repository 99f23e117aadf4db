"""Where the time of single requests went, as OpenTelemetry spans.

::

    traceparent ─▶ begin ─▶ Trace                  every request, or so many a second as are wanted
                     │  stage, ran                 seconds that the metrics count too, measured once
                     ▼  finish
                 [ waiting, bounded ] ──1 s──▶ Exporter's thread ─▶ OTLP over HTTP

    POST /predict          server span, child of the caller's
      ├ receive, decode    of the whole request; decode also of a batch that its engine's thread decoded
      ├ queue              one for each batch that its images ran in
      ├ inference          likewise, linked to ▶ batch, a trace of its own, linked to all its members
      └ serialize

Off unless an endpoint is set; `otlp` alone knows OpenTelemetry, and is imported only then.

Source: W3C Trace Context, level 2; OpenTelemetry specification, "Links between spans".
"""

from service.tracing.context import TraceContext, parse_traceparent
from service.tracing.recording import Exporter, RunBatch, StageTime, Trace, Tracer

__all__ = ["Exporter", "RunBatch", "StageTime", "Trace", "TraceContext", "Tracer", "parse_traceparent"]
