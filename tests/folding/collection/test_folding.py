"""The fold against the collection: every network at its optimum, exact in float64."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from model_export.folding import fold
from model_export.records import Objective
from tests.folding.collection import COLLECTION, Network
from tests.folding.collection.judging import Folder, judge
from tests.folding.collection.not_yet import NOT_YET
from tests.folding.collection.registry import DynamicShapes


def folder(objective: Objective) -> Folder:
    """Our fold, under ``objective``."""

    def folded(
        model: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes | None
    ) -> ExportedProgram:
        return fold(model, inputs, objective=objective, dynamic_shapes=dynamic_shapes).program

    return folded


def each(networks: Iterable[Network], missing: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """One test a network; those not reached yet are marked ``missing``."""
    marks = {True: [missing], False: []}
    params = [pytest.param(n, id=n.name, marks=marks[n.name in NOT_YET]) for n in networks]
    return pytest.mark.parametrize("network", params)


# Strict: a network that is reached must leave the set.
UNREACHED = pytest.mark.xfail(strict=True, reason="not reached yet")
SKIPPED = pytest.mark.skip(reason="not reached yet")


def test_what_is_not_reached_yet_is_in_the_collection() -> None:
    assert COLLECTION.keys() >= NOT_YET


@each(COLLECTION.values(), UNREACHED)
def test_the_fewest_maps_are_left_and_nothing_changed(network: Network) -> None:
    assert not judge(network, folder("fewest")).complaints


@each(COLLECTION.values(), SKIPPED)
def test_folding_for_speed_changes_nothing_in_the_network_s_own_precision(network: Network) -> None:
    assert not judge(network, folder("speed"), network.dtype, fewest=False).complaints


@each([n for n in COLLECTION.values() if n.dtype is not torch.float32], SKIPPED)
def test_a_network_keeps_its_precision(network: Network) -> None:
    assert not judge(network, folder("fewest"), network.dtype).complaints
