"""The metrics: what is counted is what is shown, in a format that a parser of the library's own takes."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from service.errors import Reason, ReloadResult
from service.metrics import (
    BATCH_SIZE_BUCKETS,
    DURATION_BUCKETS_S,
    MAX_LABELS,
    OTHER_LABEL,
    Metrics,
    metrics_reference,
)
from service.metrics.gpu import GpuReading, open_gpus
from service.metrics.series import CounterFamily, Histogram
from tests.service.fakes import until
from tests.service.test_drift import World


@dataclass
class Batch:
    """An answered one."""

    probabilities: NDArray[np.float32]
    queue_s: list[float]
    inference_s: float
    left: int = 0
    started: float = 0.0


@dataclass
class Queue:
    """A batcher's state."""

    depth: int = 3
    capacity: int = 10
    predicted_wait_s: float = 0.25
    queue_age_s: float = 0.5


def make() -> Metrics:
    return Metrics(version="1.2.3", commit="abc")


def value(metrics: Metrics, sample: str, **labels: str) -> float | None:
    found: float | None = metrics.registry.get_sample_value(sample, labels)
    return found


def _samples(families: Iterable[Metric]) -> dict[tuple[object, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def batch(*rows: tuple[float, ...]) -> Batch:
    return Batch(np.array(rows, np.float32), [0.002] * len(rows), 0.02)


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(0, 5), st.floats(0, 100))
def test_a_histogram_counts_every_value_once_at_its_edge(
    values: list[float], times: int, repeated: float
) -> None:
    histogram = Histogram(DURATION_BUCKETS_S)
    histogram.observe_all(values)
    histogram.observe_times(repeated, times)
    everything = values + [repeated] * times
    for edge, count in histogram.cumulative():
        assert count == sum(observed <= float(edge) for observed in everything)
    assert histogram.sum == pytest.approx(math.fsum(everything))
    single = Histogram(DURATION_BUCKETS_S)
    for observed in everything:
        single.observe(observed)
    assert single.counts == histogram.counts


@pytest.mark.parametrize("edges", [DURATION_BUCKETS_S, BATCH_SIZE_BUCKETS])
def test_buckets_are_log_spaced(edges: tuple[float, ...]) -> None:
    ratios = [higher / lower for lower, higher in pairwise(edges)]
    assert all(1.9 < ratio < 2.6 for ratio in ratios)


def test_a_batch_is_counted_instance_by_instance() -> None:
    metrics = make()
    model = metrics.for_model("digits", "1", ("zero", "one"))
    model.batch_finished(batch((0.9, 0.1), (0.25, 0.75), (0.3, 0.7)))
    key = {"model": "digits", "version": "1"}
    assert value(metrics, "foldserve_images_total", **key, outcome="predicted") == 3
    assert value(metrics, "foldserve_batches_total", **key) == 1
    assert value(metrics, "foldserve_batch_size_sum", **key) == 3
    assert value(metrics, "foldserve_predictions_total", **key, label="zero") == 1
    assert value(metrics, "foldserve_predictions_total", **key, label="one") == 2
    assert value(metrics, "foldserve_stage_duration_seconds_count", **key, stage="queue") == 3
    inference_s = value(metrics, "foldserve_stage_duration_seconds_sum", **key, stage="inference")
    assert inference_s == pytest.approx(0.06)
    assert value(metrics, "foldserve_confidence_sum", **key) == pytest.approx(2.35)
    assert value(metrics, "foldserve_confidence_bucket", **key, le="0.8") == 2


def test_a_multilabel_batch_counts_every_label_above_the_threshold() -> None:
    metrics = make()
    metrics.for_model("tags", "1", ("sky", "sea"), 0.5).batch_finished(batch((0.5, 0.9), (0.4, 0.1)))
    key = {"model": "tags", "version": "1"}
    assert value(metrics, "foldserve_predictions_total", **key, label="sky") == 1
    assert value(metrics, "foldserve_predictions_total", **key, label="sea") == 1


def test_more_labels_than_the_limit_count_as_other() -> None:
    metrics = make()
    labels = [f"class {index}" for index in range(MAX_LABELS + 50)]
    model = metrics.for_model("big", "1", labels)
    model.batch_finished(Batch(np.eye(len(labels), dtype=np.float32), [0.0] * len(labels), 0.1))
    shown = dict(model.predictions())
    assert len(shown) == MAX_LABELS + 1
    assert shown[OTHER_LABEL] == 50
    assert sum(shown.values()) == len(labels)


def test_everything_that_did_not_become_a_prediction_is_counted_by_its_reason() -> None:
    metrics = make()
    model = metrics.for_model("digits", "1", ("a", "b"))
    model.batch_failed(4)
    model.instances_failed(Reason.INFERENCE_FAILED, 4)
    model.instances_failed(Reason.DEADLINE_EXCEEDED, 2)
    model.instances_cancelled("queue", 3)
    model.image_rejected(Reason.UNDECODABLE_IMAGE)
    metrics.request_rejected(Reason.OVERLOADED)
    key = {"model": "digits", "version": "1"}
    assert value(metrics, "foldserve_images_total", **key, outcome="inference_failed") == 4
    assert value(metrics, "foldserve_images_total", **key, outcome="deadline_exceeded") == 2
    assert value(metrics, "foldserve_images_total", **key, outcome="cancelled") == 3
    assert value(metrics, "foldserve_images_total", **key, outcome="undecodable_image") == 1
    assert value(metrics, "foldserve_cancelled_total", stage="queue") == 3
    assert value(metrics, "foldserve_rejected_total", reason="overloaded") == 1


def test_what_waits_to_be_counted_is_bounded() -> None:
    """Also where nobody scrapes, and where no client waits for its answer."""
    metrics = make()
    model = metrics.for_model("digits", "1", ("a", "b"))
    for _ in range(999):
        model.note["receive"](0.001)
        metrics.request_left()
        model.batch_finished(batch(*[(0.9, 0.1)] * 64))
    assert sum(map(len, model._seconds.values())) < 1000 + 16384
    assert sum(map(len, (noted.queue_s for noted in model._batches_noted))) <= 16384
    metrics.request_finished("/predict", "POST", 200, 0.01)
    assert value(metrics, "foldserve_confidence_count", model="digits", version="1") == 999 * 64


def test_drift_is_shown_the_batches_that_were_due_when_they_ran() -> None:
    metrics = make()
    model = metrics.for_model("m", "1", ("a", "b"), reference=World(1, 2).reference())
    assert model.drift is not None
    for tenth in range(20):
        rows = [(1.0, 0.0) if tenth % 2 else (0.0, 1.0)] * (tenth + 1)
        for started in (tenth / 8, tenth / 8 + 0.01):
            model.batch_finished(replace(batch(*rows), started=started))
    metrics.settle()
    shown = [(labels.tolist(), sure.tolist()) for labels, sure in model.drift._predictions]
    assert shown == [([(tenth + 1) % 2] * (tenth + 1), [1.0] * (tenth + 1)) for tenth in range(20)]


def test_requests_by_route_method_and_code() -> None:
    metrics = make()
    metrics.request_finished("/predict", "POST", 200, 0.01)
    metrics.request_finished("/predict", "POST", 503, 0.001)
    assert value(metrics, "foldserve_requests_total", route="/predict", method="POST", code="503") == 1
    assert value(metrics, "foldserve_request_duration_seconds_count", route="/predict") == 2


def test_a_version_that_is_released_is_shown_no_more() -> None:
    metrics = make()
    for version, digest in (("1", "aa"), ("2", "bb")):
        metrics.model_loaded(
            "digits",
            version,
            precision="fp32",
            sha256=digest,
            requested_provider="auto",
            active_provider="cpu",
            is_fallback=False,
            selftest_max_abs_error=1e-6,
        )
    metrics.model_unloaded("digits", "1")
    text = metrics.render()[0].decode()
    assert 'sha256="bb"' in text
    assert 'sha256="aa"' not in text
    assert (
        value(metrics, "foldserve_execution_provider_info", model="digits", requested="auto", active="cpu")
        == 1
    )
    assert value(metrics, "foldserve_selftest_max_abs_error", model="digits", version="2") == 1e-6


def _load(metrics: Metrics, active_provider: str) -> None:
    metrics.model_loaded(
        "m",
        "1",
        precision="fp32",
        sha256="aa",
        requested_provider="auto",
        active_provider=active_provider,
        is_fallback=active_provider == "cpu",
        selftest_max_abs_error=0,
    )


def test_gpus_are_read_where_a_model_runs_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [GpuReading("0", 2**30, 2**34, 0.75)]
    monkeypatch.setattr("service.metrics.recording.open_gpus", lambda: lambda: readings)
    metrics = make()
    _load(metrics, "cpu")
    assert value(metrics, "foldserve_gpu_utilization_ratio", gpu="0") is None
    _load(metrics, "cuda")
    assert value(metrics, "foldserve_gpu_memory_used_bytes", gpu="0") == 2**30
    assert value(metrics, "foldserve_gpu_memory_total_bytes", gpu="0") == 2**34
    assert value(metrics, "foldserve_gpu_utilization_ratio", gpu="0") == 0.75


@pytest.mark.parametrize("is_installed", [True, False])
def test_without_a_gpu_nothing_is_said_of_any(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a library without a driver nor no library at all is an error."""
    monkeypatch.setitem(sys.modules, "pynvml", NoDriver() if is_installed else None)
    assert open_gpus()() == []


class NoDriver(ModuleType):
    """NVIDIA's library, on a machine without a driver."""

    class NVMLError(Exception):
        """What it raises."""

    def __init__(self) -> None:
        super().__init__("pynvml")

    def nvmlInit(self) -> None:  # noqa: N802  # as the library spells it
        raise self.NVMLError("Driver Not Loaded")


def test_a_fallback_to_the_cpu_shows_until_the_model_is_gone() -> None:
    metrics = make()
    for provider, shown in (("cpu", 1), ("cuda", 0)):
        _load(metrics, provider)
        metrics.watch_queue("m", Queue())
        assert value(metrics, "foldserve_cpu_fallback", model="m") == shown
    metrics.unwatch_queue("m")
    assert value(metrics, "foldserve_cpu_fallback", model="m") is None
    assert "foldserve_execution_provider_info{" not in metrics.render()[0].decode()


def test_what_alerts_look_at_begins_at_zero() -> None:
    """What begins at 1 has not grown, as far as Prometheus knows: the first failure would raise no alert."""
    metrics = make()
    metrics.expect_failures("/predict", "POST", [500])
    metrics.load_finished("digits", ReloadResult.SUCCESS, 0.5)
    assert value(metrics, "foldserve_requests_total", route="/predict", method="POST", code="500") == 0
    for result in ReloadResult:
        count = value(metrics, "foldserve_reloads_total", model="digits", result=result.value)
        assert count == (result is ReloadResult.SUCCESS)


def test_loads_by_their_result() -> None:
    metrics = make()
    metrics.load_finished("digits", ReloadResult.SELFTEST_FAILED, 0.5)
    assert value(metrics, "foldserve_reloads_total", model="digits", result="selftest_failed") == 1
    assert value(metrics, "foldserve_model_load_duration_seconds_sum", model="digits") == 0.5


def test_the_queue_and_readiness_are_read_when_scraped() -> None:
    metrics, queue, ready = make(), Queue(), [False]
    metrics.watch_queue("digits", queue)
    metrics.watch_ready(lambda: ready[0])
    assert value(metrics, "foldserve_queue_depth", model="digits") == 3
    assert value(metrics, "foldserve_queue_capacity", model="digits") == 10
    assert value(metrics, "foldserve_predicted_wait_seconds", model="digits") == 0.25
    assert value(metrics, "foldserve_ready") == 0
    queue.depth, ready[0] = 7, True
    assert value(metrics, "foldserve_queue_depth", model="digits") == 7
    assert value(metrics, "foldserve_ready") == 1
    assert value(metrics, "foldserve_build_info", version="1.2.3", commit="abc") == 1


async def test_the_lag_of_the_event_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.metrics.recording.LAG_INTERVAL_S", 0.001)
    metrics = make()
    stop = metrics.watch_event_loop()
    await until(lambda: bool(value(metrics, "foldserve_event_loop_lag_seconds_count")))
    stop()


def test_every_metric_keeps_the_conventions() -> None:
    metrics = make()
    metrics.watch_queue("m", Queue())
    model = metrics.for_model("m", "1", ("a",))
    model.batch_finished(batch((1.0,)))
    for family in parse_plain(metrics.render()[0].decode()):
        assert re.fullmatch(r"foldserve_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|milliseconds|kb|mb)\b", family.name)


def test_both_formats_hold_the_same_samples() -> None:
    metrics = make()
    metrics.request_finished("/predict", "POST", 200, 0.01)
    metrics.for_model("m", "1", ("a",)).batch_finished(batch((1.0,)))
    plain, plain_type = metrics.render()
    openmetrics, openmetrics_type = metrics.render(openmetrics=True)
    assert plain_type.startswith("text/plain")
    assert openmetrics_type.startswith("application/openmetrics-text")
    # The library does not annotate this parser.
    strict = openmetrics_parser.text_string_to_metric_families(openmetrics.decode())  # type: ignore[no-untyped-call]
    samples = _samples(strict)
    assert samples == _samples(parse_plain(plain.decode()))
    assert len(samples) > 100


def test_labels_are_given_in_full() -> None:
    family = CounterFamily("foldserve_things", "Things.", ("kind", "colour"))
    family.labels("box", "red").inc()
    with pytest.raises(ValueError, match="kind"):
        family.labels("box")
    family.remove(colour="red")
    assert not list(family.items())


def test_reference_is_current() -> None:
    reference = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert reference.read_text() == metrics_reference(), "write it anew: python -m service metrics"


def test_every_metric_that_is_shown_is_in_the_reference() -> None:
    metrics = make()
    metrics.watch_queue("m", Queue())
    metrics.for_model("m", "1", ("a",)).batch_finished(batch((1.0,)))
    reference = metrics_reference()
    for family in parse_plain(metrics.render()[0].decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` | {family.type} |" in reference
