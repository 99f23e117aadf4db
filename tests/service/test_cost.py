"""The cost model: learns a line, forgets, is never negative, and is not taken in by a stall."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import CostModel
from service.batcher.cost import DecodePace, Lateness

durations = st.floats(1e-5, 10.0)
sizes = st.integers(1, 64)


@given(st.lists(st.tuples(sizes, durations), min_size=1, max_size=50), sizes)
def test_predictions_are_never_negative_and_grow_with_the_batch(
    batches: list[tuple[int, float]], n: int
) -> None:
    cost = CostModel()
    for size, seconds in batches:
        cost.learn(size, seconds)
    assert 0 <= cost.predict_s(n) <= cost.predict_s(n + 1)
    assert cost.overhead_s >= -1e-12
    assert cost.per_instance_s >= 0


@given(st.floats(1e-5, 0.1), st.floats(1e-5, 0.1))
def test_learns_a_line(overhead_s: float, per_instance_s: float) -> None:
    cost = CostModel()
    for size in (1, 2, 4, 8, 16, 32, 64):
        cost.learn(size, overhead_s + per_instance_s * size)
    assert cost.predict_s(1) == pytest.approx(overhead_s + per_instance_s, rel=0.3)
    for _ in range(100):
        for size in (1, 8, 64):
            cost.learn(size, overhead_s + per_instance_s * size)
    assert cost.overhead_s == pytest.approx(overhead_s, rel=1e-3, abs=1e-6)
    assert cost.per_instance_s == pytest.approx(per_instance_s, rel=1e-3)


def test_predicts_nothing_before_the_first_batch() -> None:
    cost = CostModel()
    assert cost.predict_s(64) == 0
    assert cost.drain_s(1000, 64) == 0


def test_one_size_only_overestimates_larger_batches() -> None:
    cost = CostModel()
    for _ in range(10):
        cost.learn(1, 0.01)
    assert cost.predict_s(1) == pytest.approx(0.01)
    assert cost.predict_s(8) == pytest.approx(0.08)


def test_one_size_keeps_what_was_known_of_the_slope() -> None:
    cost = CostModel()
    for size in (1, 64) * 5:
        cost.learn(size, 0.01 + 0.001 * size)
    for _ in range(1000):
        cost.learn(1, 0.022)  # the machine became half as fast
    assert cost.predict_s(1) == pytest.approx(0.022)
    assert 0.07 < cost.predict_s(64) < 0.15


def test_follows_a_machine_that_slows_down() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.learn(8, 0.01)
    for _ in range(60):
        cost.learn(8, 0.1)
    assert cost.predict_s(8) == pytest.approx(0.1, rel=0.1)


def test_a_stall_counts_as_a_slow_batch_not_as_the_speed() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.learn(8, 0.01)
    cost.learn(8, 30.0)
    assert cost.predict_s(8) < 0.015


@given(st.integers(0, 500), st.integers(1, 64))
def test_drain_is_full_batches_and_a_rest(n: int, max_batch_size: int) -> None:
    cost = CostModel()
    for size in (1, 64) * 200:
        cost.learn(size, 1.0 + size)
    sizes_run = [max_batch_size] * (n // max_batch_size) + (
        [n % max_batch_size] if n % max_batch_size else []
    )
    assert cost.drain_s(n, max_batch_size) == pytest.approx(sum(1.0 + size for size in sizes_run), abs=1e-6)


def test_noise_is_not_taken_for_overhead() -> None:
    generator = random.Random(3)
    cost = CostModel()
    for size in (1, 2, 3) * 300:
        cost.learn(size, (0.001 + 0.019 * size) * generator.lognormvariate(0, 0.3))
        assert cost.worthwhile_size(64) <= 8
    assert cost.per_instance_s == pytest.approx(0.019, rel=0.2)


def learnt(overhead_s: float, per_instance_s: float) -> CostModel:
    cost = CostModel()
    for size in (1, 2, 4, 8) * 60:
        cost.learn(size, overhead_s + per_instance_s * size)
    return cost


@pytest.mark.parametrize(
    ("overhead_s", "per_instance_s", "size"),
    [
        (20e-6, 45e-6, 64),  # a small CNN: the whole batch takes 3 ms
        (0.5e-3, 18e-3, 4),  # ResNet-18 on a core: batching gains little
        (5e-3, 18e-3, 5),  # the same with an overhead worth spreading
        (10e-3, 0.1e-3, 64),  # a GPU
        (0.0, 1.0, 1),  # slow, one by one
    ],
)
def test_a_batch_is_no_longer_than_it_is_worth(overhead_s: float, per_instance_s: float, size: int) -> None:
    assert learnt(overhead_s, per_instance_s).worthwhile_size(64) == size


def test_in_lanes_batches_take_longer_and_are_shorter() -> None:
    cost = learnt(0.1e-3, 10e-3)
    assert (cost.worthwhile_size(64), cost.worthwhile_size(64, lanes=2)) == (7, 3)


def test_the_first_batches_are_as_large_as_allowed() -> None:
    assert CostModel().worthwhile_size(64) == 64


@given(st.lists(st.tuples(sizes, durations), max_size=50), sizes)
def test_a_worthwhile_batch_is_a_possible_one(batches: list[tuple[int, float]], limit: int) -> None:
    cost = CostModel()
    for size, seconds in batches:
        cost.learn(size, seconds)
    assert 1 <= cost.worthwhile_size(limit) <= limit


def test_the_pace_of_decoding_is_the_time_between_images_without_the_pauses() -> None:
    pace = DecodePace()
    now = 0.0
    for _ in range(20):
        now += 100.0
        pace.resume(now)
        for _ in range(3):
            now += 0.01
            pace.learn(now)
    assert pace.drain_s(50) == pytest.approx(0.5)


def test_one_cold_image_is_no_pace() -> None:
    pace = DecodePace()
    pace.learn(1.0)
    for number in range(1, 20):
        pace.learn(1.0 + 0.001 * number)
    assert pace.interval_s < 0.06


def test_a_margin_covers_errors_that_vary() -> None:
    lateness = Lateness()
    assert lateness.margin_s == 0
    for error_s in (-0.1, 0.1) * 100:
        lateness.learn(error_s)
    assert lateness.margin_s == pytest.approx(0.6, rel=0.05)


def test_a_stall_is_forgotten() -> None:
    lateness = Lateness()
    lateness.learn(5.0)
    for _ in range(100):
        lateness.learn(0.0)
    assert lateness.margin_s < 0.1
