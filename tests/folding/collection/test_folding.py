"""The fold against the collection: every network at its optimum, exact in float64."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from model_export.folding import count_affine_maps, fold
from model_export.records import Objective
from tests.folding.collection import COLLECTION, Network
from tests.folding.collection.counting import census
from tests.folding.collection.judging import Folder, exported, judge
from tests.folding.collection.registry import DynamicShapes


def each(networks: Iterable[Network]) -> pytest.MarkDecorator:
    """One test a network."""
    return pytest.mark.parametrize("network", [pytest.param(n, id=n.name) for n in networks])


def folder(objective: Objective) -> Folder:
    """Our fold, under ``objective``. Its report must count what the collection's counter counts."""

    def folded(
        model: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes | None
    ) -> ExportedProgram:
        result = fold(model, inputs, objective=objective, dynamic_shapes=dynamic_shapes)
        assert result.report.affine_maps_left == census(result.program, inputs).affine_maps
        return result.program

    return folded


@each(COLLECTION.values())
def test_the_fewest_maps_are_left_and_nothing_changed(network: Network) -> None:
    assert not judge(network, folder("fewest")).complaints


@each(COLLECTION.values())
def test_folding_for_speed_changes_nothing(network: Network) -> None:
    assert not judge(network, folder("speed"), fewest=False).complaints


@pytest.mark.parametrize("objective", ["fewest", "speed"])
@each([n for n in COLLECTION.values() if n.dtype is not torch.float32])
def test_a_network_keeps_its_precision(network: Network, objective: Objective) -> None:
    verdict = judge(network, folder(objective), network.dtype, fewest=objective == "fewest")
    assert not verdict.complaints


@each([n for n in COLLECTION.values() if n.topic in {"affine_maps", "left_alone", "rearrangements"}])
def test_both_counters_agree_on_what_is_not_folded(network: Network) -> None:
    program = exported(*network.build(torch.float64))
    assert count_affine_maps(program) == census(program).affine_maps
