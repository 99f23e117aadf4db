"""The figures: exact percentiles, shares and medians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measurement import PERCENTILES, Sample, parse_server_timing, percentile, summarise

latencies = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=300)


@given(latencies, st.sampled_from(PERCENTILES))
def test_percentile_is_the_inverse_of_the_distribution(values: list[float], p: float) -> None:
    assert percentile(sorted(values), p) == np.percentile(values, p, method="inverted_cdf")


def _sample(kind: str = "ok", latency_s: float = 0.010, **fields: object) -> Sample:
    defaults = {"at_s": 0.0, "form": "raw", "images": 2, "right": 1, "known": 2, "stages_ms": {"queue": 3.0}}
    return Sample(kind=kind, latency_s=latency_s, **(defaults | fields))  # type: ignore[arg-type]


def test_failures_count_as_errors_and_not_into_latency_or_throughput() -> None:
    samples = [_sample(), _sample(latency_s=0.020), _sample("overloaded", 9.0), _sample("no_answer", 9.0)]
    summary = summarise(samples, duration_s=2.0)
    assert summary.errors == 0.5
    assert summary.max_ms == 20.0
    assert (summary.requests_per_s, summary.images_per_s) == (1.0, 2.0)
    assert summary.by_kind == {"ok": 2, "overloaded": 1, "no_answer": 1}
    assert summary.accuracy == 0.5
    assert summary.stages_ms == {"queue": 3.0}


def test_nothing_answered_has_no_latency() -> None:
    summary = summarise([_sample("no_answer")], duration_s=1.0)
    assert math.isnan(summary.percentiles[99.0])
    assert summary.errors == 1.0
    assert summary.accuracy is None


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("", {}),
        ("decode;dur=0.25, queue;dur=1, inference;dur=12.5", {"decode": 0.25, "queue": 1, "inference": 12.5}),
        ('cache;desc="hit", queue;dur=2', {"queue": 2}),
    ],
)
def test_server_timing(header: str, stages: dict[str, float]) -> None:
    assert parse_server_timing(header) == stages
