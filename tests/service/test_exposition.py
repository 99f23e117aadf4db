"""Our own text of the metrics is that of prometheus-client, byte by byte."""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import FinishedBatch
from service.metrics import Metrics, render_snapshot, snapshot, total, triton_names
from service.metrics.series import CounterFamily, GaugeFamily, HistogramFamily
from service.metrics.text import render
from tests.service.exposition import as_the_library_writes, registry_of
from tests.service.test_drift import World

VALUES = st.floats() | st.integers(0, 10**17).map(float)
WORDS = st.text(st.sampled_from('aß"\\\n{},= '), max_size=5)


class Families(Metrics):
    """Metrics of a test's own, in the place of the service's."""

    def __init__(self) -> None:
        super().__init__(version="0")
        for name in [name for name, value in vars(self).items() if hasattr(value, "lines")]:
            delattr(self, name)
        self.things = CounterFamily("foldserve_things", 'Things, "all" of them; a \\ too.', ("zone", "kind"))
        self.level = GaugeFamily("foldserve_level", "One.")
        self.waits = HistogramFamily(
            "foldserve_waits_seconds", "Waits.", ("zone",), buckets=(0.001, 1.0, 2500000.0)
        )

    def _read(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("openmetrics", [False, True])
@given(st.lists(st.tuples(WORDS, WORDS, VALUES), max_size=5), st.lists(st.floats(0, 1e7), max_size=5), WORDS)
def test_whatever_is_in_them(
    openmetrics: bool, things: list[tuple[str, str, float]], waits: list[float], trace_id: str
) -> None:
    families = Families()
    for zone, kind, value in things:
        families.things.labels(zone, kind).value = value
        families.level.labels().set(value)
        for wait in waits:
            families.waits.labels(zone).observe(wait)
    for wait in waits:
        families.waits.labels("z").exemplify(wait, trace_id)
    expected = as_the_library_writes(families.registry, openmetrics=openmetrics)
    assert families.render(openmetrics=openmetrics)[0] == expected
    again, _ = render(families, openmetrics=openmetrics)
    assert again == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.5, 1e6, 1.25e16, 1e-7])
def test_numbers_are_written_as_go_does(value: float) -> None:
    families = Families()
    families.level.labels().set(value)
    assert families.render()[0] == as_the_library_writes(families.registry, openmetrics=False)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_services_own(openmetrics: bool) -> None:
    metrics = Metrics(version="1")
    metrics.request_finished("/predict", "POST", 200, 0.01, "4bf92f3577b34da6a3ce929d0e0e4736")
    metrics.for_model("m", "1", ("a", "b")).note["decode"](0.5)
    text, kind = metrics.render(openmetrics=openmetrics)
    assert text == as_the_library_writes(metrics.registry, openmetrics=openmetrics)
    assert kind.startswith("application/openmetrics-text" if openmetrics else "text/plain")


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_sum_of_workers_and_tritons_names(openmetrics: bool) -> None:
    metrics = Metrics(version="1")
    metrics.for_model("m", "1", ("a", "b")).note["decode"](0.5)
    whole = snapshot(metrics)
    whole = {**whole, **triton_names(whole)}
    text, _ = render_snapshot(whole, openmetrics=openmetrics)
    assert text == as_the_library_writes(registry_of(whole), openmetrics=openmetrics)


def _busy_metrics(models: int) -> Metrics:
    """Of models that were all asked, each with ten labels and a reference to compare with."""
    metrics, rows = Metrics(version="1"), np.eye(10, dtype=np.float32)
    for number in range(models):
        reference = World(number).reference()
        model = metrics.for_model(f"m{number}", "1", tuple("abcdefghij"), reference=reference)
        model.batch_finished(FinishedBatch(rows, rows, inference_s=0.004, queue_s=[0.001] * 10, started=0.0))
        for note in model.note.values():
            note(0.001)
    return metrics


def _least_s(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of some attempts: what it takes where nobody interferes."""
    return min(timeit.repeat(work, timer=time.thread_time, number=1, repeat=10))


def test_ten_models_are_written_in_less_than_10_ms() -> None:
    """By one worker, and by one of two: what each of them has, their sum, and its text."""
    metrics = _busy_metrics(10)
    others = [snapshot(_busy_metrics(10)) for _ in range(2)]
    text, _ = metrics.render()
    assert text.count(b"\n") > 1000
    assert _least_s(metrics.render) < 0.01
    assert _least_s(lambda: snapshot(metrics)) + _least_s(lambda: render_snapshot(total(others))) < 0.01


def test_a_series_that_came_back_is_written_anew() -> None:
    families = Families()
    for _ in range(2):
        families.things.labels("a", "b").inc()
        assert 'foldserve_things_total{kind="b",zone="a"} 1.0' in families.render()[0].decode()
        families.things.remove(zone="a")
        assert "kind=" not in families.render()[0].decode()
