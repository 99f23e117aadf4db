"""What a traced request remembers, and the way out of the process."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from service.tracing.context import parse_traceparent

_FLUSH_INTERVAL_S: Final = 1.0
# What was not used of the last second may be used at once.
_BURST_S: Final = 1.0
# Waiting for the exporter: what a collector that hangs may cost. About a kilobyte each.
_MAX_WAITING: Final = 2048

Attributes: TypeAlias = Mapping[str, str | int]
Result: TypeAlias = Literal["exported", "failed", "dropped"]


class StageTime(NamedTuple):
    """Seconds of one stage, from a moment of `time.monotonic` on."""

    name: str
    started: float
    seconds: float


class RunBatch(NamedTuple):
    """A batch that instances of a request ran in; the moment when it went to the engine tells it apart.

    Before that moment it was being decoded for ``decode_s``.
    """

    model: str
    started: float
    decode_s: float
    inference_s: float
    size: int


class Trace:
    """One request, as it is being answered. Times are those of `time.monotonic`.

    Attributes:
        trace_id: 32 hexadecimal digits; the caller's where it sent them.
        span_id: Of the request's span; 16 hexadecimal digits.
        parent_id: Of the caller's span.
        stages: In the order of their ends.
        batches: Batch → longest wait for it among the request's instances.
        name: Of the span; as the four below known once it is finished.
        started: At the request's first byte.
        seconds: Until the end of its answer.
        attributes: By OpenTelemetry's names.
        is_failure: Whether it was answered with a 5xx.
    """

    __slots__ = (
        "_tracer",
        "attributes",
        "batches",
        "is_failure",
        "name",
        "parent_id",
        "seconds",
        "span_id",
        "stages",
        "started",
        "trace_id",
    )

    def __init__(self, tracer: Tracer, trace_id: str, parent_id: str | None) -> None:
        self._tracer = tracer
        self.trace_id = trace_id
        self.span_id = make_id(8)
        self.parent_id = parent_id
        self.stages: list[StageTime] = []
        self.batches: dict[RunBatch, float] = {}
        self.name = ""
        self.started = self.seconds = 0.0
        self.attributes: dict[str, str | int] = {}
        self.is_failure = False

    def stage(self, name: str, started: float, seconds: float) -> None:
        """The request spent so long in this stage."""
        self.stages.append(StageTime(name, started, seconds))

    def ran(self, batch: RunBatch, queue_s: float) -> None:
        """One of its instances waited so long for this batch."""
        self.batches[batch] = max(queue_s, self.batches.get(batch, 0.0))

    def finish(
        self, name: str, started: float, seconds: float, attributes: Attributes, *, is_failure: bool
    ) -> None:
        """It was answered, or its client left."""
        self.is_failure = is_failure
        self.name = name
        self.started = started
        self.seconds = seconds
        self.attributes.update(attributes)
        self._tracer.take(self)


class Exporter(Protocol):
    """Who sends traces away. Called on a thread of the tracer's own."""

    def export(self, traces: Sequence[Trace]) -> bool:
        """Send these; False if they are lost."""

    def close(self) -> None:
        """Send what is still held back, then nothing more."""


class Tracer:
    """Decides which requests are traced, and hands them on when they are finished.

    At most so many a second are: the cost is bounded, whatever the load, and whatever callers ask for.
    A caller that does not record its own part is not traced.

    Args:
        exporter: Where they go.
        per_s: Traces a second.
        count: Told (result, n) of what became of them; ``dropped`` on the event loop, else on the thread.
        clock: Seconds.
    """

    def __init__(
        self,
        exporter: Exporter,
        per_s: float,
        count: Callable[[Result, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exporter = exporter
        self._interval_s = 1 / per_s
        self._count: Callable[[Result, int], None] = count
        self._clock = clock
        self._next = clock() - _BURST_S
        self._waiting: deque[Trace] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def begin(self, traceparent: bytes | None) -> Trace | None:
        """The trace of a request that begins now; None if it is not to be traced."""
        now = self._clock()
        if now < self._next:
            return None
        caller = parse_traceparent(traceparent)
        if caller is not None and not caller.is_sampled:
            return None
        self._next = max(self._next, now - _BURST_S) + self._interval_s
        return Trace(self, make_id(16), None) if caller is None else Trace(self, *caller[:2])

    def take(self, trace: Trace) -> None:
        """Have a finished trace exported; at once, as far as this thread is concerned."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(trace)
        else:
            self._count("dropped", 1)

    def close(self, timeout_s: float) -> None:
        """Export what waits. Blocks; not for the event loop's thread."""
        self._closing.set()
        self._thread.join(timeout_s)

    # The thread's side.

    def _run(self) -> None:
        while not self._closing.wait(_FLUSH_INTERVAL_S):
            self._flush()
        self._flush()
        self._exporter.close()

    def _flush(self) -> None:
        traces = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if traces:
            is_sent = self._exporter.export(traces)
            self._count("exported" if is_sent else "failed", len(traces))


def make_id(size: int) -> str:
    """A random id of so many bytes, not 0, in hexadecimal."""
    return os.urandom(size).hex() if size > 8 else f"{int.from_bytes(os.urandom(size)) or 1:016x}"
