"""The families: names, labels, buckets. Base units (seconds, bytes); every label comes from a closed set.

Durations have the buckets 0.1 ms … 60 s in steps of 1 – 2.5 – 5, so that the usual objectives (10, 25,
50, 100, 250, 500 ms, 1 s) are edges and a quantile is right within a factor of 2.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from service.metrics.series import CounterFamily, GaugeFamily, HistogramFamily

Stage: TypeAlias = Literal["receive", "decode", "queue", "inference", "serialize"]
RemoteOperation: TypeAlias = Literal["look", "fetch", "write"]
TraceResult: TypeAlias = Literal["exported", "failed", "dropped"]
Family: TypeAlias = CounterFamily | GaugeFamily | HistogramFamily

DURATION_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0),
)
BATCH_SIZE_BUCKETS = tuple(float(1 << power) for power in range(11))
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
DISTANCE_BUCKETS = (1e-6, 1e-5, 1e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# More label values would make a scrape large and a dashboard unreadable.
MAX_LABELS = 100
OTHER_LABEL = "other"
LAG_INTERVAL_S = 0.25


class Families:
    """Every family of one application, in the order of the exposition."""

    def __init__(self) -> None:
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
        self.key_requests = CounterFamily(
            "foldserve_key_requests",
            "Requests with a known API key, by its name in the key file: admitted, or the reason of the "
            f"refusal. The ones after the first {MAX_LABELS} names count as '{OTHER_LABEL}'.",
            ("key", "outcome"),
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
        self.drift = GaugeFamily(
            "foldserve_drift_psi",
            "Population stability index of the last 2,000 sampled images against training; 0.1 is little, "
            "0.25 much. Features: mean, contrast, size, confidence, label.",
            ("model", "version", "feature"),
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
        self.cpu_fallback = GaugeFamily(
            "foldserve_cpu_fallback",
            "1 where the model runs on the CPU, unasked, although an NVIDIA driver is installed.",
            ("model",),
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
        self.remote_failures = CounterFamily(
            "foldserve_remote_failures",
            "A remote repository did not answer: to a look, a fetch of a file, or a changed plan.",
            ("operation",),
        )
        self.selftest_error = GaugeFamily(
            "foldserve_selftest_max_abs_error",
            "Largest difference between a logit and the one in the model file.",
            ("model", "version"),
        )
        self.event_loop_lag = HistogramFamily(
            "foldserve_event_loop_lag_seconds",
            f"How late the event loop ran a timer, every {LAG_INTERVAL_S:g} s.",
            buckets=DURATION_BUCKETS_S,
        )
        self.traces = CounterFamily(
            "foldserve_traces",
            "Traces sent to the collector; failed: it did not take them; dropped: too many waited.",
            ("result",),
        )
        self.build_info = GaugeFamily("foldserve_build_info", "The running code.", ("version", "commit"))
        self.predictions = CounterFamily(
            "foldserve_predictions",
            f"Predicted labels; the ones after the first {MAX_LABELS} count as '{OTHER_LABEL}'.",
            ("model", "version", "label"),
        )
        self.queue_depth = GaugeFamily("foldserve_queue_depth", "Images waiting for a batch.", ("model",))
        self.queue_capacity = GaugeFamily(
            "foldserve_queue_capacity", "Most images that may be admitted and unanswered.", ("model",)
        )
        self.predicted_wait = GaugeFamily(
            "foldserve_predicted_wait_seconds",
            "Until an image admitted now would begin its inference.",
            ("model",),
        )
        self.queue_age = GaugeFamily(
            "foldserve_queue_age_seconds", "How long the oldest waiting image has waited.", ("model",)
        )
        self.gpu_memory_used = GaugeFamily(
            "foldserve_gpu_memory_used_bytes",
            "Memory of the GPU in use, by whomever. Only where a model runs on one.",
            ("gpu",),
        )
        self.gpu_memory_total = GaugeFamily(
            "foldserve_gpu_memory_total_bytes", "Memory of the GPU. Only where a model runs on one.", ("gpu",)
        )
        self.gpu_utilization = GaugeFamily(
            "foldserve_gpu_utilization_ratio",
            "Share of the time in which the GPU was busy, by whomever. Only where a model runs on one.",
            ("gpu",),
        )
        self.shadow_images = CounterFamily(
            "foldserve_shadow_images",
            "Copies for the shadow by what became of them: agreed and differed (in the most probable label), "
            "dropped, failed.",
            ("model", "version", "candidate", "outcome"),
        )
        self.shadow_distance = HistogramFamily(
            "foldserve_shadow_distance",
            "Between the probabilities of the live version and the candidate's: total variation, or for "
            "multi-label models the mean difference.",
            ("model", "version", "candidate"),
            buckets=DISTANCE_BUCKETS,
        )
        self.shadow_inference = HistogramFamily(
            "foldserve_shadow_inference_seconds",
            "Inference of the compared images, by the live version and by the candidate.",
            ("model", "version", "candidate", "side"),
            buckets=DURATION_BUCKETS_S,
        )
        self.ready = GaugeFamily("foldserve_ready", "1 while the process can predict.")
        self.workers = GaugeFamily(
            "foldserve_workers",
            "Worker processes, ready or unready (loading, draining).",
            ("state",),
        )

    def __iter__(self) -> Iterator[Family]:
        """Every family."""
        return (
            value
            for value in vars(self).values()
            if isinstance(value, (CounterFamily, GaugeFamily, HistogramFamily))
        )


def metrics_reference() -> str:
    """``docs/metrics.md``: every family as a row of a table."""
    return "\n".join([*_REFERENCE_HEAD, *map(_row, Families()), ""])


def _row(family: Family) -> str:
    labels = ", ".join(family.label_names)
    return f"| `{family.exposed_name}` | {family.kind} | {labels} | {family.documentation} |"


_REFERENCE_HEAD = (
    "# Metrics",
    "",
    "`GET /metrics` gives Prometheus text, and OpenMetrics to who asks for it. Times are in seconds, and",
    "every label comes from a closed set. With several workers counters and histograms are added up, and of",
    "the states the worst is shown.",
    "",
    "Buckets of durations: " + ", ".join(f"{edge:g}" for edge in DURATION_BUCKETS_S) + " s.",
    "Of batch sizes: powers of two up to " + f"{BATCH_SIZE_BUCKETS[-1]:g}" + ".",
    "Of confidence: " + ", ".join(f"{edge:g}" for edge in CONFIDENCE_BUCKETS) + ".",
    "Of the shadow's distance: " + ", ".join(f"{edge:g}" for edge in DISTANCE_BUCKETS) + ".",
    "",
    "Made by `python -m service metrics`.",
    "",
    "| metric | kind | labels | what it tells |",
    "| --- | --- | --- | --- |",
)
