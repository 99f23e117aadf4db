"""Logits and accuracy are the same whatever form the network has, and asking leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from model_export.evaluation import BATCH_SIZE, accuracy, predict, share_right
from tests.model_export.tiny_datasets import drawn_dataset, drawn_split, small_network


def test_every_form_gives_the_same_logits() -> None:
    dataset, network = drawn_dataset(), small_network().eval()
    program = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: Dim("batch")},))
    images = drawn_split(BATCH_SIZE + 3, seed=4).images
    by_module = predict(network, images, dataset.contract)
    by_program = predict(program, images, dataset.contract)
    pixels = ((images / 255 - dataset.contract.mean) / dataset.contract.std).transpose(0, 3, 1, 2)
    by_hand = network(torch.from_numpy(pixels).float()).detach().numpy()
    assert by_module.shape == (BATCH_SIZE + 3, 4)
    np.testing.assert_allclose(by_module, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_program, by_module, rtol=1e-5, atol=1e-6)


def test_the_precision_is_that_of_the_weights() -> None:
    dataset = drawn_dataset()
    logits = predict(small_network().double(), dataset.test.images, dataset.contract)
    assert logits.dtype == np.float64


def test_asking_leaves_no_trace() -> None:
    dataset, network = drawn_dataset(), small_network()
    network[0].eval()  # a frozen part in a network that is being trained
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    images = dataset.test.images.copy()
    predict(network, dataset.test.images, dataset.contract)
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert np.array_equal(images, dataset.test.images)


def test_modes_are_restored_even_after_a_failure() -> None:
    dataset, network = drawn_dataset(), nn.Sequential(nn.BatchNorm2d(2))
    with pytest.raises(RuntimeError):
        predict(network, dataset.test.images, dataset.contract)
    assert network[0].training


def test_accuracy_counts_right_answers_of_the_named_split() -> None:
    dataset, network = drawn_dataset(), small_network()
    logits = predict(network, dataset.test.images, dataset.contract)
    answered = replace(dataset, test=replace(dataset.test, targets=logits.argmax(axis=1)))
    assert accuracy(network, answered, "test", name="unfolded").value == 1
    wrong = replace(dataset, test=replace(dataset.test, targets=(logits.argmax(axis=1) + 1) % 4))
    result = accuracy(network, wrong, "test", name="unfolded")
    assert (result.form, result.dataset, result.split, result.instances) == ("unfolded", "drawn", "test", 32)
    assert result.value == 0


def test_single_labels_are_judged_by_the_top_one_and_several_each_by_itself() -> None:
    logits = np.array([[2.0, 1.0, -1.0], [-3.0, -2.0, -1.0]], np.float32)
    assert share_right(logits, np.array([0, 0])) == 0.5
    assert share_right(logits, np.array([[1, 1, 0], [0, 0, 1]])) == 5 / 6
