"""Traces: the right parents, seconds that are counted elsewhere too, bounded cost, nothing unless asked."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics import parser as openmetrics_parser

from loadtest.measurement import parse_server_timing
from service.app import Application
from service.errors import InvalidConfiguration
from service.settings import Settings
from service.tracing import Trace, Tracer, parse_traceparent
from tests.service.api.collector import Collector, collecting
from tests.service.api.conftest import Running, Start
from tests.service.fakes import PATIENCE_S, FakeClock

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
CHILDREN = {"receive", "decode", "queue", "inference", "serialize"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


async def _predict(running: Running, image: bytes, traceparent: str | None = None) -> dict[str, float]:
    """One image; the milliseconds that the service states."""
    headers = {"Content-Type": "image/png"} | ({"traceparent": traceparent} if traceparent else {})
    answer = await running.client.post("/predict", content=image, headers=headers)
    assert answer.status_code == 200
    return parse_server_timing(answer.headers["Server-Timing"])


def _milliseconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def _attributes(span: Span) -> dict[str, object]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
        for item in span.attributes
    }


@pytest.mark.usefixtures("whenever_decoded")
async def test_a_request_is_a_span_with_its_stages_as_children(
    start: Start, image: bytes, collector: Collector
) -> None:
    async with start(otlp_endpoint=collector.endpoint) as running:
        stated_ms = await _predict(running, image, TRACEPARENT)
    (root,) = collector.named("POST /predict")
    assert root.kind == Span.SpanKind.SPAN_KIND_SERVER
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert _attributes(root)["http.response.status_code"] == 200
    children = {span.name: span for span in collector.spans if span.parent_span_id == root.span_id}
    assert set(children) == CHILDREN
    for span in children.values():
        assert span.trace_id == root.trace_id
        assert root.start_time_unix_nano - 1000 <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano + 1000
    for stage in ("decode", "queue", "inference"):
        assert _milliseconds(children[stage]) == pytest.approx(stated_ms[stage], abs=0.001), stage
    assert set(collector.services) == {"foldserve"}


async def test_a_batch_is_linked_to_its_members_and_they_to_it(
    start: Start, image: bytes, collector: Collector
) -> None:
    async with start(otlp_endpoint=collector.endpoint) as running:
        running.gate.shut()
        first = asyncio.create_task(_predict(running, image))
        await running.gate.occupied()
        together = [asyncio.create_task(_predict(running, image)) for _ in range(2)]
        while running.application.repository.resolve().batcher.depth < 2:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        running.gate.open()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(first, *together)
    members = {span.span_id: span for span in collector.named("inference")}
    batches = collector.named("batch")
    assert sorted(len(batch.links) for batch in batches) == [1, 2]
    for batch in batches:
        assert not batch.parent_span_id
        assert _attributes(batch) == {"foldserve.model": "tiny/1", "foldserve.batch_size": len(batch.links)}
        for link in batch.links:
            member = members.pop(link.span_id)
            assert member.trace_id == link.trace_id
            assert [back.span_id for back in member.links] == [batch.span_id]
            assert abs(member.start_time_unix_nano - batch.start_time_unix_nano) < 1e6
    assert not members


async def test_a_failure_says_why(start: Start, image: bytes, collector: Collector) -> None:
    async with start(otlp_endpoint=collector.endpoint) as running:
        running.gate.error = RuntimeError("poisoned")
        assert (await running.client.post("/predict", content=image)).status_code == 500
        assert (await running.client.post("/predict", content=b"no picture")).status_code == 422
        assert (await running.client.get("/readyz")).status_code == 200
    failed, refused = collector.named("POST /predict")
    assert len({span.trace_id for span in collector.spans if not span.parent_span_id}) == 2
    assert failed.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert _attributes(failed)["error.type"] == "inference_failed"
    assert refused.status.code == Status.StatusCode.STATUS_CODE_UNSET
    assert _attributes(refused)["error.type"] == "undecodable_image"


async def test_the_trace_is_in_the_log_and_an_exemplar(
    start: Start, image: bytes, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.app.journal")
    async with start(otlp_endpoint=collector.endpoint) as running:
        await _predict(running, image, TRACEPARENT)
        text = (await running.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})).text
    fields = next(record.__dict__["fields"] for record in caplog.records if record.message == "answered")
    assert fields["trace_id"] == TRACE_ID
    # The library does not annotate this parser.
    families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    exemplars = [
        sample.exemplar.labels
        for family in families
        for sample in family.samples
        if sample.name == "foldserve_request_duration_seconds_bucket" and sample.exemplar
    ]
    assert exemplars == [{"trace_id": TRACE_ID}]


async def test_a_callers_trace_is_logged_where_nothing_is_traced(
    start: Start, image: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.app.journal")
    async with start() as running:
        await _predict(running, image, TRACEPARENT)
        await _predict(running, image)
    logged = [record.__dict__["fields"] for record in caplog.records if record.message == "answered"]
    assert [fields.get("trace_id") for fields in logged] == [TRACE_ID, None]


async def test_a_collector_that_is_not_there_costs_no_answer(
    start: Start, image: bytes, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tracing.otlp._TIMEOUT_S", 0.1)
    async with start(otlp_endpoint=f"http://127.0.0.1:{unused_tcp_port}/v1/traces") as running:
        await _predict(running, image)
    assert running.metric("foldserve_traces_total", result="failed") == 1
    assert running.metric("foldserve_traces_total", result="exported") == 0


class GatedExporter:
    """Keeps what it gets, once it is let."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.has_begun = threading.Event()
        self.exported: list[Trace] = []

    def export(self, traces: Sequence[Trace]) -> bool:
        """Wait at the gate."""
        self.has_begun.set()
        assert self.is_open.wait(PATIENCE_S)
        self.exported += traces
        return True

    def close(self) -> None:
        """Nothing is held back."""


class Counts(dict[str, int]):
    """By result."""

    def __call__(self, result: str, n: int) -> None:
        self[result] = self.get(result, 0) + n


def _finish(trace: Trace) -> None:
    trace.finish("GET /", 0.0, 0.0, {}, is_failure=False)


def test_no_more_are_traced_than_wanted_whoever_asks() -> None:
    clock, exporter = FakeClock(), GatedExporter()
    tracer = Tracer(exporter, 10, Counts(), clock)
    traced = 0
    for _ in range(3000):
        clock.advance(0.001)
        traced += tracer.begin(TRACEPARENT.encode()) is not None
    assert traced == pytest.approx(40, abs=1)
    clock.advance(60)
    assert sum(tracer.begin(None) is not None for _ in range(100)) == pytest.approx(10, abs=1)
    exporter.is_open.set()
    tracer.close(PATIENCE_S)


def test_a_caller_that_is_not_recorded_is_not_traced() -> None:
    exporter = GatedExporter()
    tracer = Tracer(exporter, 1000, Counts())
    assert tracer.begin(f"00-{TRACE_ID}-{PARENT_ID}-00".encode()) is None
    trace = tracer.begin(b"nonsense")
    assert trace is not None
    assert trace.parent_id is None
    exporter.is_open.set()
    tracer.close(PATIENCE_S)


def test_an_exporter_that_hangs_costs_traces_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tracing.recording._FLUSH_INTERVAL_S", 0.001)
    monkeypatch.setattr("service.tracing.recording._MAX_WAITING", 5)
    clock, exporter, counts = FakeClock(), GatedExporter(), Counts()
    tracer = Tracer(exporter, 1000, counts, clock)
    traces = [trace for _ in range(20) if (trace := tracer.begin(None)) is not None]
    _finish(traces[0])
    assert exporter.has_begun.wait(PATIENCE_S)
    for trace in traces[1:]:
        _finish(trace)
    exporter.is_open.set()
    tracer.close(PATIENCE_S)
    assert counts == {"exported": 6, "dropped": 14}
    assert exporter.exported == traces[:6]


@given(
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255), st.sampled_from(["", "-more"])
)
def test_a_well_formed_context_is_taken_over(trace: int, parent: int, flags: int, more: str) -> None:
    version = "cc" if more else "00"
    context = parse_traceparent(f"{version}-{trace:032x}-{parent:016x}-{flags:02x}{more}".encode())
    assert context == (f"{trace:032x}", f"{parent:016x}", bool(flags % 2))


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00",
        f"ff-{TRACE_ID}-{PARENT_ID}-01".encode(),
        f"00-{TRACE_ID}-{PARENT_ID}-01-more".encode(),
        f"00-{TRACE_ID}-{PARENT_ID}-1".encode(),
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01".encode(),
        f"00-{'0' * 32}-{PARENT_ID}-01".encode(),
        f"00-{TRACE_ID}-{'0' * 16}-01".encode(),
        f" {TRACEPARENT}".encode(),
        f"{TRACEPARENT}\n".encode(),
    ],
)
def test_any_other_is_ignored(header: bytes | None) -> None:
    assert parse_traceparent(header) is None


def test_an_endpoint_without_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'foldserve\[tracing\]'"):
        Application(Settings(otlp_endpoint="http://127.0.0.1:4318/v1/traces"))


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import json, sys; from service.app import Application; from service.settings import Settings; "
        "Application(Settings()); print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    modules = json.loads(done.stdout)
    assert "service.tracing" in modules
    assert not [name for name in modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
