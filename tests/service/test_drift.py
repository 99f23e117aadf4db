"""Drift: silent while nothing changes, loud at its own feature alone when something does, cheap always."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.artifact import Histogram, ReferenceDistributions
from service.metrics import Metrics
from service.metrics.drift import MIN_SAMPLES, SAMPLE_INTERVAL_S, WINDOW, Drift, sampled, stability_index

LITTLE, MUCH = 0.1, 0.25
CLASSES = 10
INSTANCES = 5000

Shares = st.lists(st.floats(0.001, 1), min_size=2, max_size=20).map(
    lambda values: np.array(values) / sum(values)
)


def _histogram(values: NDArray[np.float64], edges: NDArray[np.floating]) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges=tuple(edges.tolist()), shares=tuple((counts / len(values)).tolist()))


class World:
    """Where images come from: each number of an image is normally distributed around its own centre."""

    def __init__(self, seed: int, classes: int = CLASSES) -> None:
        self.mean, self.contrast, self.size, self.confidence = 120.0, 40.0, 300.0, 0.8
        self.labels = np.full(classes, 1 / classes)
        self._random = np.random.default_rng(seed)

    def numbers(self, n: int) -> dict[str, NDArray[np.float64]]:
        """n images: float64 [n] of each feature."""
        return {
            "mean": self._random.normal(self.mean, 15, n),
            "contrast": self._random.normal(self.contrast, 10, n).clip(1),
            "size": self._random.normal(self.size, 100, n).clip(8),
            "confidence": self._random.normal(self.confidence, 0.1, n).clip(0, 1),
            "label": self._random.choice(len(self.labels), n, p=self.labels).astype(np.float64),
        }

    def reference(self) -> ReferenceDistributions:
        """As training would record it."""
        numbers = self.numbers(INSTANCES)
        pixel_edges = np.linspace(0, 255, 17)[1:-1]
        labels = np.bincount(numbers["label"].astype(np.intp), minlength=len(self.labels)) / INSTANCES
        return ReferenceDistributions(
            instances=INSTANCES,
            mean=_histogram(numbers["mean"], pixel_edges),
            contrast=_histogram(numbers["contrast"], pixel_edges),
            size=_histogram(numbers["size"], 2.0 ** np.arange(4, 14)),
            confidence=_histogram(numbers["confidence"], np.linspace(0, 1, 21)[1:-1]),
            labels=tuple(labels.tolist()),
        )


def _image(mean: float, contrast: float) -> NDArray[np.uint8]:
    """uint8 [8, 8, 1]: half of it brighter than the mean, half darker."""
    rows = np.tile([[mean - contrast], [mean + contrast]], (4, 8))
    return rows[:, :, np.newaxis].clip(0, 255).astype(np.uint8)


def _meet(watched: Drift, world: World, images: int) -> dict[str, float]:
    """Show so many images of a world, one at a time; its indices."""
    numbers = world.numbers(images)
    for index in range(images):
        mean, contrast, size, confidence, label = (values[index] for values in numbers.values())
        watched.observe_image(_image(mean, contrast), size, 0.0)
        watched.observe_predictions(np.array([int(label)]), np.array([confidence], np.float32), 0.0)
        if index % 50 == 0:
            dict(watched.indices())  # a scrape
    return {str(feature): index for feature, index in watched.indices()}


@given(Shares)
def test_the_index_of_equal_shares_is_zero(shares: NDArray[np.float64]) -> None:
    assert stability_index(shares, shares) == 0


@given(st.data(), Shares)
def test_the_index_is_symmetric_and_not_negative(data: st.DataObject, p: NDArray[np.float64]) -> None:
    q = np.array(data.draw(st.permutations(p.tolist())))
    assert stability_index(p, q) == pytest.approx(stability_index(q, p))
    assert stability_index(p, q) >= 0


def test_the_index_by_hand() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert stability_index(p, q) == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))


@pytest.mark.parametrize("classes", [2, CLASSES, 1000])
def test_nothing_is_said_of_what_training_saw(classes: int) -> None:
    indices = _meet(Drift(World(1, classes).reference()), World(2, classes), 1000)
    assert set(indices) == {"mean", "contrast", "size", "confidence", "label"}
    assert max(indices.values()) < LITTLE


def _brighter(world: World) -> None:
    world.mean = 150


def _flatter(world: World) -> None:
    world.contrast = 20


def _larger(world: World) -> None:
    world.size = 700


def _less_certain(world: World) -> None:
    world.confidence = 0.65


def _of_other_classes(world: World) -> None:
    world.labels = np.linspace(0.01, 0.19, CLASSES)


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("mean", _brighter),
        ("contrast", _flatter),
        ("size", _larger),
        ("confidence", _less_certain),
        ("label", _of_other_classes),
    ],
)
def test_a_change_shows_in_its_own_feature_alone(feature: str, change: Callable[[World], None]) -> None:
    world = World(2)
    change(world)
    indices = _meet(Drift(World(1).reference()), world, 1000)
    assert {name for name, index in indices.items() if index > LITTLE} == {feature}
    assert indices[feature] > MUCH


def test_what_is_over_fades() -> None:
    world = World(2)
    watched = Drift(World(1).reference())
    _brighter(world)
    assert _meet(watched, world, MIN_SAMPLES)["mean"] > MUCH
    assert _meet(watched, World(3), 3 * WINDOW)["mean"] < LITTLE


def test_few_images_say_nothing() -> None:
    assert not _meet(Drift(World(1).reference()), World(2), MIN_SAMPLES - 1)


def test_a_size_that_training_did_not_know_is_not_compared() -> None:
    reference = World(1).reference().model_copy(update={"size": None})
    assert "size" not in _meet(Drift(reference), World(2), MIN_SAMPLES)


def test_it_asks_for_no_more_than_ten_a_second() -> None:
    watched = Drift(World(1).reference())
    asked = 0
    for millisecond in range(1000):
        now = millisecond / 1000
        if now >= watched.image_due:
            asked += 1
            watched.observe_image(_image(120, 40), 300, now)
    assert asked == pytest.approx(1 / SAMPLE_INTERVAL_S, abs=1)


def test_it_keeps_little_when_nobody_scrapes() -> None:
    watched = Drift(World(1).reference())
    for _ in range(2 * MIN_SAMPLES):
        watched.observe_image(_image(120, 40), 300, 0.0)
        watched.observe_predictions(np.array([1]), np.array([0.5], np.float32), 0.0)
    assert not dict(watched.indices())


@given(st.integers(1, 300), st.integers(1, 32), st.sampled_from([1, 3]), st.integers(0, 99))
def test_a_sample_meets_every_column_and_colour(height: int, width: int, channels: int, seed: int) -> None:
    """Stripes and colours are what a careless step would see one of."""
    random = np.random.default_rng(seed)
    columns = random.choice(np.array([0, 255], np.uint8), (1, width, channels))
    pixels = np.ascontiguousarray(np.broadcast_to(columns, (height, width, channels)))
    taken = sampled(pixels)
    assert min(pixels.size, 1024) <= taken.size <= 14 * 1024
    # After each row's length of samples every column was met once; what is left over is a tenth.
    assert taken.mean() == pytest.approx(pixels.mean(), abs=25)
    assert not np.shares_memory(taken, pixels)


def test_what_is_loaded_is_compared_and_nothing_else() -> None:
    metrics = Metrics(version="1")
    series = 'foldserve_drift_psi{feature="label",model="m",version="1"}'
    for _ in range(2):
        model = metrics.for_model("m", "1", ("a", "b"), reference=_two_labels())
        assert model.drift is not None
        assert series not in _lines(metrics)
        model.drift.observe_predictions(
            np.zeros(MIN_SAMPLES, np.intp), np.full(MIN_SAMPLES, 0.9, np.float32), 0.0
        )
        assert series in _lines(metrics)
        metrics.model_unloaded("m", "1")
        assert series not in _lines(metrics)


def _lines(metrics: Metrics) -> list[str]:
    return [line.rpartition(" ")[0] for line in metrics.render()[0].decode().splitlines()]


def _two_labels() -> ReferenceDistributions:
    reference = World(1, 2).reference()
    return reference.model_copy(update={"labels": (0.5, 0.5)})
