"""The shifts of the benchmark do what they say, and adaptation is measured on held-back pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.adaptation import PRIORS, SHIFTS, accuracies, blurred, faded, noisy
from model_export.config import TrainConfig
from model_export.training import train
from tests.model_export.tiny_datasets import drawn_dataset, small_network

PICTURES = np.random.default_rng(0).integers(60, 190, (4, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_shifts_keep_shape_and_type_and_repeat(shift: object) -> None:
    assert callable(shift)
    shifted = shift(PICTURES)
    assert (shifted.shape, shifted.dtype) == (PICTURES.shape, np.uint8)
    assert np.array_equal(shifted, shift(PICTURES))


def test_shifts_do_what_they_say() -> None:
    difference = noisy(PICTURES, deviation=10).astype(float) - PICTURES
    assert difference.std() == pytest.approx(10, rel=0.1)
    assert faded(PICTURES).std() == pytest.approx(0.3 * PICTURES.std(), rel=0.05)
    assert blurred(PICTURES).std() < 0.6 * PICTURES.std()


@pytest.mark.usefixtures("one_thread")
def test_each_prior_is_measured() -> None:
    dataset, network = drawn_dataset(), small_network()
    train(network, dataset, TrainConfig(epochs=8, batch_size=16, learning_rate=0.02))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    as_trained, *adapted = accuracies(network, dataset, faded)
    assert len(adapted) == len(PRIORS)
    assert max(adapted) >= as_trained
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
