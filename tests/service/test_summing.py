"""Several workers' metrics as one service's."""

from __future__ import annotations

import re

import orjson
from hypothesis import given
from hypothesis import strategies as st

from service.metrics import Metrics, lasting, missing_workers, render_snapshot, snapshot, total
from tests.service.exposition import as_the_library_writes, registry_of

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=5)


def worker(answered: int, in_flight: int = 0, *, is_ready: bool = True) -> Metrics:
    metrics = Metrics(version="1")
    for _ in range(answered):
        metrics.request_finished("/predict", "POST", 200, 0.002)
    metrics.inflight_requests.set(in_flight)
    metrics.watch_ready(lambda: is_ready)
    return metrics


def value(of: dict[str, dict[str, object]], name: str, **labels: str) -> float | None:
    return registry_of(of).get_sample_value(name, labels)


ROUTE = {"route": "/predict", "method": "POST", "code": "200"}


@given(counts)
def test_counters_histograms_and_amounts_add_up(numbers: list[int]) -> None:
    whole = total(snapshot(worker(number, number)) for number in numbers)
    assert value(whole, "foldserve_requests_total", **ROUTE) == (sum(numbers) or None)
    assert value(whole, "foldserve_inflight_requests") == sum(numbers)
    if sum(numbers):
        count = value(whole, "foldserve_request_duration_seconds_count", route="/predict")
        below = value(whole, "foldserve_request_duration_seconds_bucket", route="/predict", le="0.0025")
        assert count == below == sum(numbers)


def test_the_newest_exemplar_of_each_bucket_is_shown() -> None:
    older, newer = (Metrics(version="1") for _ in range(2))
    for metrics, trace_id, seconds in (
        (older, "a" * 32, 0.002),
        (older, "b" * 32, 2.0),
        (newer, "c" * 32, 0.002),
    ):
        metrics.request_finished("/predict", "POST", 200, seconds, trace_id)
    # As it travels between processes.
    snapshots = [orjson.loads(orjson.dumps(snapshot(each))) for each in (newer, older)]
    text, _ = render_snapshot(total(snapshots), openmetrics=True)
    shown = re.findall(r'# \{trace_id="(\w)\w*"\} (\S+)', text.decode())
    assert sorted(shown) == [("b", "2.0"), ("c", "0.002")]
    assert text == as_the_library_writes(registry_of(total(snapshots)), openmetrics=True)


def test_one_worker_that_is_not_ready_shows() -> None:
    ready, not_ready = snapshot(worker(0)), snapshot(worker(0, is_ready=False))
    assert value(total([ready, ready]), "foldserve_ready") == 1
    assert value(total([ready, not_ready]), "foldserve_ready") == 0


def test_workers_are_counted_by_whether_they_predict() -> None:
    whole = total([snapshot(worker(0)), snapshot(worker(0, is_ready=False)), missing_workers(2)])
    assert value(whole, "foldserve_workers", state="ready") == 1
    assert value(whole, "foldserve_workers", state="unready") == 3


def test_information_is_not_multiplied() -> None:
    whole = total([snapshot(worker(0))] * 3)
    assert value(whole, "foldserve_build_info", version="1", commit="unknown") == 1


def test_what_an_ended_worker_counted_stays_and_what_it_had_does_not() -> None:
    rest = lasting(snapshot(worker(7, 3)))
    whole = total([rest, snapshot(worker(1, 1))])
    assert value(whole, "foldserve_requests_total", **ROUTE) == 8
    assert value(whole, "foldserve_inflight_requests") == 1


def test_the_sum_of_one_is_that_one() -> None:
    metrics = worker(5, 1)
    for openmetrics in (False, True):
        alone, _ = metrics.render(openmetrics=openmetrics)
        summed, _ = render_snapshot(total([snapshot(metrics)]), openmetrics=openmetrics)
        assert sorted(summed.splitlines()) == sorted(alone.splitlines())
