"""The collection examines itself: every network runs, repeats itself, and states its optimum."""

from __future__ import annotations

import pytest
import torch

from tests.folding.collection import COLLECTION, TOPICS, Network
from tests.folding.collection.judging import outputs_of

NETWORKS = pytest.mark.parametrize("network", COLLECTION.values(), ids=list(COLLECTION))


def test_there_are_enough_networks_of_every_topic() -> None:
    assert len(COLLECTION) >= 130
    topics = {network.topic for network in COLLECTION.values()}
    assert topics == {module.__name__.rpartition(".")[2] for module in TOPICS}


@NETWORKS
def test_the_optimum_is_derived(network: Network) -> None:
    assert network.fewest >= 0
    assert len(network.why.split()) >= 4


@NETWORKS
def test_a_network_is_the_same_at_every_build(network: Network) -> None:
    first, second = network.build(), network.build()
    assert not first.model.training
    for a, b in zip(
        outputs_of(first.model, first.inputs), outputs_of(second.model, second.inputs), strict=True
    ):
        assert torch.equal(a, b)


@NETWORKS
def test_the_outputs_depend_on_the_input(network: Network) -> None:
    model = network.build(torch.float64).model
    for probe in network.probes(torch.float64):
        for output in outputs_of(model, probe):
            assert output.isfinite().all()
            # Not constant: a comparison with it means something.
            assert output.std() > 1e-6 * output.abs().max()
