"""The families: names, labels, buckets. Base units (seconds, bytes); every label comes from a closed set.

Durations have the buckets 0.1 ms … 60 s in steps of 1 – 2.5 – 5, so that the usual objectives (10, 25,
50, 100, 250, 500 ms, 1 s) are edges and a quantile is right within a factor of 2.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector

from service.errors import Reason, ReloadResult
from service.metrics.series import CounterFamily, Gauge, GaugeFamily, HistogramFamily

Stage: TypeAlias = Literal["receive", "decode", "queue", "inference", "serialize"]

DURATION_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0),
)
BATCH_SIZE_BUCKETS = tuple(float(1 << power) for power in range(11))
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
# More label values would make a scrape large and a dashboard unreadable.
MAX_LABELS = 100
OTHER_LABEL = "other"
_LAG_INTERVAL_S = 0.25


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


class AnsweredBatch(Protocol):
    """What is read of a batch that ran."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [N, K]."""

    @property
    def queue_s(self) -> list[float]:
        """Seconds each member waited."""

    @property
    def inference_s(self) -> float:
        """Seconds with the engine."""


class Metrics(Collector):
    """All families of one application."""

    def __init__(self, *, version: str, commit: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = CounterFamily("foldserve_requests", "Requests answered.", ("route", "method", "code"))
        self.request_duration = HistogramFamily(
            "foldserve_request_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            ("route",),
            buckets=DURATION_BUCKETS_S,
        )
        self.inflight = GaugeFamily("foldserve_inflight_requests", "Requests being answered.")
        self.rejected = CounterFamily(
            "foldserve_rejected", "Requests or images answered with an error, by its reason.", ("reason",)
        )
        self.cancelled = CounterFamily(
            "foldserve_cancelled", "Images whose client left, by the stage they were in.", ("stage",)
        )
        self.images = CounterFamily(
            "foldserve_images",
            "Images by what became of them: predicted, or the reason of the error.",
            ("model", "version", "outcome"),
        )
        self.stage_duration = HistogramFamily(
            "foldserve_stage_duration_seconds",
            "Time spent in one stage; queue, decode and inference count each image.",
            ("model", "version", "stage"),
            buckets=DURATION_BUCKETS_S,
        )
        self.batch_size = HistogramFamily(
            "foldserve_batch_size", "Images run together.", ("model", "version"), buckets=BATCH_SIZE_BUCKETS
        )
        self.batches = CounterFamily("foldserve_batches", "Batches run.", ("model", "version"))
        self.confidence = HistogramFamily(
            "foldserve_confidence",
            "Probability of the most probable label.",
            ("model", "version"),
            buckets=CONFIDENCE_BUCKETS,
        )
        self.model_info = GaugeFamily(
            "foldserve_model_info",
            "The model versions being served.",
            ("model", "version", "precision", "sha256"),
        )
        self.execution_provider_info = GaugeFamily(
            "foldserve_execution_provider_info",
            "The execution provider asked for and the one in use.",
            ("model", "requested", "active"),
        )
        self.load_duration = HistogramFamily(
            "foldserve_model_load_duration_seconds",
            "Building, warming and self-testing one version.",
            ("model",),
            buckets=DURATION_BUCKETS_S,
        )
        self.reloads = CounterFamily(
            "foldserve_reloads", "Loads of a model version, by their result.", ("model", "result")
        )
        self.selftest_error = GaugeFamily(
            "foldserve_selftest_max_abs_error",
            "Largest difference between a logit and the one in the model file.",
            ("model", "version"),
        )
        self.event_loop_lag = HistogramFamily(
            "foldserve_event_loop_lag_seconds",
            f"How late the event loop ran a timer, every {_LAG_INTERVAL_S:g} s.",
            buckets=DURATION_BUCKETS_S,
        )
        self.build_info = GaugeFamily("foldserve_build_info", "The running code.", ("version", "commit"))
        self.build_info.labels(version, commit or "unknown").set(1)
        self.inflight_requests: Gauge = self.inflight.labels()
        self._queues: dict[str, QueueStatus] = {}
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._is_ready: Callable[[], bool] = lambda: False
        self.registry.register(self)

    def for_model(
        self, name: str, version: str, labels: Sequence[str] = (), threshold: float | None = None
    ) -> ModelMetrics:
        """The cached series of one model version.

        Args:
            name: Model.
            version: Of it.
            labels: Its label names, in the order of its outputs.
            threshold: For multilabel models, the probability from which on a label is predicted;
                None: the most probable one is.
        """
        key = (name, version)
        if key not in self._models:
            self._models[key] = ModelMetrics(self, name, version, labels, threshold)
        return self._models[key]

    def request_finished(self, route: str, method: str, code: str, seconds: float) -> None:
        """A request was answered; ``route`` is the template, never the path."""
        self.requests.labels(route, method, code).inc()
        self.request_duration.labels(route).observe(seconds)

    def request_rejected(self, reason: Reason) -> None:
        """A request, or one of its images, was answered with an error."""
        self.rejected.labels(reason.value).inc()

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
        selftest_max_abs_error: float,
    ) -> None:
        """This version of the model serves from now on."""
        for family in (self.model_info, self.execution_provider_info, self.selftest_error):
            family.remove(model=name)
        self.model_info.labels(name, version, precision, sha256).set(1)
        self.execution_provider_info.labels(name, requested_provider, active_provider).set(1)
        self.selftest_error.labels(name, version).set(selftest_max_abs_error)

    def load_finished(self, name: str, result: ReloadResult, seconds: float) -> None:
        """An attempt at loading a version of the model ended."""
        self.reloads.labels(name, result.value).inc()
        self.load_duration.labels(name).observe(seconds)

    def watch_queue(self, model: str, queue: QueueStatus) -> None:
        """Read this queue's state at every scrape, in place of the model's earlier one."""
        self._queues[model] = queue

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Ask this at every scrape whether the process can predict."""
        self._is_ready = is_ready

    def watch_event_loop(self) -> Callable[[], None]:
        """Measure from now on how late the running loop is; the result stops it."""
        return _LagTimer(self).stop

    def render(self, *, openmetrics: bool = False) -> tuple[bytes, str]:
        """The whole exposition and its content type."""
        return render(self.registry, openmetrics=openmetrics)

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        for family in vars(self).values():
            if isinstance(family, (CounterFamily, GaugeFamily, HistogramFamily)):
                yield family.collect()
        yield self._predictions()
        yield from self._queue_gauges()
        ready = GaugeFamily("foldserve_ready", "1 while the process can predict.")
        ready.labels().set(float(self._is_ready()))
        yield ready.collect()

    def _predictions(self) -> Metric:
        family = CounterMetricFamily(
            "foldserve_predictions",
            f"Predicted labels; the ones after the first {MAX_LABELS} count as '{OTHER_LABEL}'.",
            labels=("model", "version", "label"),
        )
        for (name, version), model in self._models.items():
            for label, count in model.predictions():
                family.add_metric((name, version, label), count)
        return family

    def _queue_gauges(self) -> Iterator[Metric]:
        readings: tuple[tuple[str, str, Callable[[QueueStatus], float]], ...] = (
            ("foldserve_queue_depth", "Images waiting for a batch.", lambda queue: queue.depth),
            (
                "foldserve_queue_capacity",
                "Most images that may be admitted and unanswered.",
                lambda queue: queue.capacity,
            ),
            (
                "foldserve_predicted_wait_seconds",
                "Until an image admitted now would begin its inference.",
                lambda queue: queue.predicted_wait_s,
            ),
            (
                "foldserve_queue_age_seconds",
                "How long the oldest waiting image has waited.",
                lambda queue: queue.queue_age_s,
            ),
        )
        for name, documentation, read in readings:
            family = GaugeFamily(name, documentation, ("model",))
            for model, queue in self._queues.items():
                family.labels(model).set(read(queue))
            yield family.collect()


def render(registry: CollectorRegistry, *, openmetrics: bool = False) -> tuple[bytes, str]:
    """A registry's exposition and its content type."""
    if openmetrics:
        text: bytes = openmetrics_exposition.generate_latest(registry)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
        return text, openmetrics_exposition.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class ModelMetrics:
    """The series of one model version, found once. It is the observer of that version's batcher."""

    def __init__(
        self, metrics: Metrics, name: str, version: str, labels: Sequence[str], threshold: float | None
    ) -> None:
        self._metrics = metrics
        self._images = metrics.images
        self._key = (name, version)
        self._labels = tuple(labels)
        self._threshold = threshold
        self._counts = np.zeros(len(labels), np.int64)
        stages: tuple[Stage, ...] = ("receive", "decode", "queue", "inference", "serialize")
        self.stages = {stage: metrics.stage_duration.labels(name, version, stage) for stage in stages}
        self._predicted = metrics.images.labels(name, version, "predicted")
        self._batch_size = metrics.batch_size.labels(name, version)
        self._batches = metrics.batches.labels(name, version)
        self._confidence = metrics.confidence.labels(name, version)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """One image (for receive and serialize: one request) spent so long in this stage."""
        self.stages[stage].observe(seconds)

    def image_rejected(self, reason: Reason, n: int = 1) -> None:
        """n images got this error instead of a prediction."""
        self._images.labels(*self._key, reason.value).inc(n)

    def batch_finished(self, batch: AnsweredBatch) -> None:
        """A batch was answered."""
        size = len(batch.queue_s)
        self._predicted.inc(size)
        self._batches.inc()
        self._batch_size.observe(size)
        self.stages["queue"].observe_all(batch.queue_s)
        self.stages["inference"].observe_times(batch.inference_s, size)
        self._confidence.observe_all(batch.probabilities.max(axis=1).tolist())
        self._count_labels(batch.probabilities)

    def batch_failed(self, size: int) -> None:
        """The engine raised for a batch of so many instances, or stopped under it."""
        self._batches.inc()
        self._batch_size.observe(size)
        self.image_rejected(Reason.INFERENCE_FAILED, size)

    def instances_cancelled(self, stage: Stage, n: int) -> None:
        """The clients of n images left."""
        self._metrics.instances_cancelled(stage, n)
        self._images.labels(*self._key, "cancelled").inc(n)

    def instances_expired(self, n: int) -> None:
        """n images were dropped because their deadline had passed."""
        self.image_rejected(Reason.DEADLINE_EXCEEDED, n)

    def predictions(self) -> Iterator[tuple[str, int]]:
        """(label, how often it was predicted)."""
        counts = self._counts.tolist()
        yield from zip(self._labels[:MAX_LABELS], counts, strict=False)
        if len(counts) > MAX_LABELS:
            yield OTHER_LABEL, sum(counts[MAX_LABELS:])

    def _count_labels(self, probabilities: NDArray[np.float32]) -> None:
        if self._threshold is not None:
            self._counts += (probabilities >= self._threshold).sum(axis=0)
        elif self._labels:
            self._counts += np.bincount(probabilities.argmax(axis=1), minlength=len(self._counts))


class _LagTimer:
    """A timer that measures how late it was called."""

    def __init__(self, metrics: Metrics) -> None:
        self._lag = metrics.event_loop_lag.labels()
        self._loop = asyncio.get_running_loop()
        self._arm()

    def _arm(self) -> None:
        self._due = self._loop.time() + _LAG_INTERVAL_S
        self._handle = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._lag.observe(max(0.0, self._loop.time() - self._due))
        self._arm()

    def stop(self) -> None:
        """Measure no more."""
        self._handle.cancel()
