"""Recording: what the other rooms call, and how it becomes an exposition.

What an alert looks at begins at 0. A series that begins at 1 has not grown, as far as Prometheus knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.artifact import ReferenceDistributions
from service.errors import Reason, ReloadResult
from service.metrics.drift import Drift
from service.metrics.families import (
    LAG_INTERVAL_S,
    MAX_LABELS,
    OTHER_LABEL,
    Families,
    RemoteOperation,
    Stage,
    TraceResult,
)
from service.metrics.gpu import ReadGpus, open_gpus
from service.metrics.model import ModelMetrics
from service.metrics.text import render

# Requests between two settlements: a dozen numbers each are kept until then.
_SETTLE_EVERY: Final = 256


class QueueStatus(Protocol):
    """What is read of a batcher when a scrape comes."""

    @property
    def depth(self) -> int:
        """Instances waiting for a batch."""

    @property
    def capacity(self) -> int:
        """Most instances admitted and unanswered."""

    @property
    def predicted_wait_s(self) -> float:
        """Seconds until the inference of an instance admitted now would begin."""

    @property
    def queue_age_s(self) -> float:
        """Seconds the oldest waiting instance has waited."""


class Metrics(Families, Collector):
    """The metrics of one application, in a registry of its own."""

    def __init__(self, *, version: str, commit: str | None = None) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.build_info.labels(version, commit or "unknown").set(1)
        self.inflight_requests = self.inflight.labels()
        self._queues: dict[str, QueueStatus] = {}
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        # Route, method and status → seconds of each request since the last settlement.
        self._answered: dict[tuple[str, str, int], list[float]] = {}
        self._unsettled = 0
        self._key_names: set[str] = set()
        # What is said of a model only while it takes requests.
        self._of_serving = (
            self.queue_depth,
            self.queue_capacity,
            self.predicted_wait,
            self.queue_age,
            self.execution_provider_info,
            self.cpu_fallback,
        )
        self._is_ready: Callable[[], bool] = lambda: False
        self._read_gpus: ReadGpus | None = None
        self.registry.register(self)

    def for_model(
        self,
        name: str,
        version: str,
        labels: Sequence[str] = (),
        threshold: float | None = None,
        reference: ReferenceDistributions | None = None,
    ) -> ModelMetrics:
        """The cached series of one model version.

        Args:
            name: Model.
            version: Of it.
            labels: Its label names, in the order of its outputs.
            threshold: For multilabel models, the probability from which on a label is predicted;
                None: the most probable one is.
            reference: What training saw; None: nothing is said of drift.
        """
        key = (name, version)
        known = self._models.get(key)
        if known is not None:
            known.settle()
        if known is None or not known.is_of(labels, threshold):
            self._models[key] = known = ModelMetrics(self, name, version, labels, threshold)
        known.drift = None if reference is None else Drift(reference)
        return known

    def expect_failures(self, route: str, method: str, statuses: Iterable[int]) -> None:
        """Show that no request of this kind has ended so yet."""
        for status in statuses:
            self.requests.labels(route, method, str(status))

    def request_finished(
        self, route: str, method: str, status: int, seconds: float, trace_id: str | None = None
    ) -> None:
        """A request was answered; ``route`` is the template, never the path."""
        try:
            self._answered[route, method, status].append(seconds)
        except KeyError:
            self._answered[route, method, status] = [seconds]
        if trace_id is not None:
            self.request_duration.labels(route).exemplify(seconds, trace_id)
        self._unsettled += 1
        if self._unsettled >= _SETTLE_EVERY:
            self.settle()

    def request_left(self) -> None:
        """A request ended without an answer: what it left is counted with that of others."""
        self._unsettled += 1
        if self._unsettled >= _SETTLE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Count what requests and batches left to be counted; also done by every scrape."""
        self._unsettled = 0
        for (route, method, status), seconds in self._answered.items():
            if seconds:
                self.requests.labels(route, method, str(status)).inc(len(seconds))
                self.request_duration.labels(route).observe_all(seconds)
                seconds.clear()
        for model in self._models.values():
            model.settle()

    def remote_failed(self, operation: RemoteOperation) -> None:
        """A remote repository did not answer."""
        self.remote_failures.labels(operation).inc()

    def trace_counter(self) -> Callable[[TraceResult, int], None]:
        """What counts traces. For any thread, as long as each result has one of its own."""
        series = {result: self.traces.labels(result) for result in get_args(TraceResult)}
        return lambda result, n: series[result].inc(n)

    def request_rejected(self, reason: Reason) -> None:
        """A request, or one of its images, was answered with an error."""
        self.rejected.labels(reason.value).inc()

    def key_used(self, name: str, outcome: str) -> None:
        """A request came with a key of this name."""
        if name not in self._key_names:
            if len(self._key_names) < MAX_LABELS:
                self._key_names.add(name)
            else:
                name = OTHER_LABEL
        self.key_requests.labels(name, outcome).inc()

    def instances_cancelled(self, stage: Stage, n: int = 1) -> None:
        """The client of n images left while they were in this stage."""
        self.cancelled.labels(stage).inc(n)

    def model_loaded(
        self,
        name: str,
        version: str,
        *,
        precision: str,
        sha256: str,
        requested_provider: str,
        active_provider: str,
        is_fallback: bool,
        selftest_max_abs_error: float,
    ) -> None:
        """This version of the model is loaded, in place of whatever had its number.

        Args:
            is_fallback: It runs on the CPU because the GPU that is there could not be used.
        """
        for family in (self.model_info, self.selftest_error, self.drift):
            family.remove(model=name, version=version)
        self.execution_provider_info.remove(model=name)
        self.model_info.labels(name, version, precision, sha256).set(1)
        self.execution_provider_info.labels(name, requested_provider, active_provider).set(1)
        self.cpu_fallback.labels(name).set(float(is_fallback))
        self.selftest_error.labels(name, version).set(selftest_max_abs_error)
        if active_provider != "cpu" and self._read_gpus is None:
            self._read_gpus = open_gpus()

    def model_unloaded(self, name: str, version: str) -> None:
        """This version of the model is gone from memory."""
        for family in (self.model_info, self.selftest_error, self.drift):
            family.remove(model=name, version=version)
        if (name, version) in self._models:
            self._models[name, version].drift = None

    def forget(self, name: str, version: str) -> None:
        """Show nothing more of a version that is long gone, or the series would grow with every release."""
        self._models.pop((name, version), None)
        for family in self:
            if {"model", "version"} <= set(family.label_names):
                family.remove(model=name, version=version)

    def load_finished(self, name: str, result: ReloadResult, seconds: float) -> None:
        """An attempt at loading a version of the model ended."""
        for each in ReloadResult:
            self.reloads.labels(name, each.value)
        self.reloads.labels(name, result.value).inc()
        self.load_duration.labels(name).observe(seconds)

    def watch_queue(self, model: str, queue: QueueStatus) -> None:
        """Read this queue's state at every scrape, in place of the model's earlier one."""
        self._queues[model] = queue

    def unwatch_queue(self, model: str) -> None:
        """The model takes no requests any more."""
        del self._queues[model]
        for family in self._of_serving:
            family.remove(model=model)

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Ask this at every scrape whether the process can predict."""
        self._is_ready = is_ready

    def watch_event_loop(self) -> Callable[[], None]:
        """Measure from now on how late the running loop is; the result stops it."""
        return _LagTimer(self).stop

    def render(self, *, openmetrics: bool = False) -> tuple[bytes, str]:
        """The whole exposition and its content type."""
        self._read()
        return render(self, openmetrics=openmetrics)

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        self._read()
        return (family.collect() for family in self)

    def _read(self) -> None:
        """Bring what is read rather than counted up to date, and count the rest."""
        self.settle()
        is_ready = self._is_ready()
        self.ready.labels().set(float(is_ready))
        self.workers.labels("ready").set(float(is_ready))
        self.workers.labels("unready").set(float(not is_ready))
        for name, queue in self._queues.items():
            self.queue_depth.labels(name).set(queue.depth)
            self.queue_capacity.labels(name).set(queue.capacity)
            self.predicted_wait.labels(name).set(queue.predicted_wait_s)
            self.queue_age.labels(name).set(queue.queue_age_s)
        for reading in self._read_gpus() if self._read_gpus is not None else ():
            self.gpu_memory_used.labels(reading.gpu).set(reading.used_bytes)
            self.gpu_memory_total.labels(reading.gpu).set(reading.total_bytes)
            self.gpu_utilization.labels(reading.gpu).set(reading.utilization)
        for (name, version), model in self._models.items():
            for label, count in model.predictions():
                self.predictions.labels(name, version, label).value = count
            if model.drift is not None:
                for feature, index in model.drift.indices():
                    self.drift.labels(name, version, feature).set(index)


class ShadowMetrics:
    """The series of one candidate behind one live version, found once."""

    def __init__(self, metrics: Metrics, name: str, version: str, candidate: str) -> None:
        key = (name, version, candidate)
        self.agreed = metrics.shadow_images.labels(*key, "agreed")
        self.differed = metrics.shadow_images.labels(*key, "differed")
        self.dropped = metrics.shadow_images.labels(*key, "dropped")
        self.failed = metrics.shadow_images.labels(*key, "failed")
        self.distance = metrics.shadow_distance.labels(*key)
        self.live_inference = metrics.shadow_inference.labels(*key, "live")
        self.candidate_inference = metrics.shadow_inference.labels(*key, "candidate")


class _LagTimer:
    """A timer that measures how late it was called."""

    def __init__(self, metrics: Metrics) -> None:
        self._lag = metrics.event_loop_lag.labels()
        self._loop = asyncio.get_running_loop()
        self._arm()

    def _arm(self) -> None:
        self._due = self._loop.time() + LAG_INTERVAL_S
        self._handle = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._lag.observe(max(0.0, self._loop.time() - self._due))
        self._arm()

    def stop(self) -> None:
        """Measure no more."""
        self._handle.cancel()
