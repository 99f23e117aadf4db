"""Dead and constant channels: reported always, dropped on request, and nothing changes."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from model_export.folding import fold
from model_export.records import Objective


def network(*, padding: int = 0, channels: int = 6) -> nn.Module:
    """Conv → BN → ReLU → pool → conv → BN → ReLU → flatten → linear, some channels constant."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, channels, 3),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 5, 3, padding=padding, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * (3 + 2 * padding - 2) ** 2, 4),
    ]
    model = nn.Sequential(*layers)
    for norm in (model[1], model[5]):
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.data[1:3] = 0
        norm.bias.data[1], norm.bias.data[2] = 0.7, -0.7
    return model.eval().double()


@pytest.mark.parametrize("padding", [0, 1])
def test_pruning_changes_nothing(padding: int) -> None:
    model = network(padding=padding)
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    result = fold(model, (images,), prune=True, dynamic_shapes=({0: torch.export.Dim("batch")},))
    others = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(result.program.module()(others), model(others), rtol=1e-12, atol=1e-12)
    # Under zero padding the channel that is 0.7 must stay: its border is 0.
    assert result.report.pruned == (4 if padding == 0 else 3)
    widths = sorted(w.shape[0] for w in result.program.state_dict.values() if w.dim() == 4)
    assert widths == ([3, 4] if padding == 0 else [3, 5])


@pytest.mark.parametrize(
    ("padding", "shift", "pruned"), [(0, 0.7, 2), (1, 0.0, 2), (1, 0.7, 1), ("same", 0.7, 1)]
)
def test_constant_channels_go_through_a_depthwise_layer(
    padding: int | Literal["same"], shift: float, pruned: int
) -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=padding, groups=6),
        nn.ReLU6(),
        nn.Conv2d(6, 4, 1),
    ]
    model = nn.Sequential(*layers)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.data[1:3] = 0
    # Under zero padding a channel that is not 0 has another border, so it must stay.
    norm.bias.data[1], norm.bias.data[2] = shift, -0.7
    model.eval().double()
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    result = fold(model, (images,), prune=True)
    with torch.no_grad():
        torch.testing.assert_close(result.program.module()(images), model(images), rtol=1e-12, atol=1e-12)
    assert result.report.pruned == pruned
    assert {w.shape[0] for w in result.program.state_dict.values() if w.dim() == 4} == {6 - pruned, 4}


def test_constant_channels_are_reported_without_pruning() -> None:
    result = fold(network(), (torch.randn(2, 2, 8, 8, dtype=torch.float64),))
    assert result.report.pruned == 0
    assert [(dead.layer, dead.channels) for dead in result.report.dead_channels] == [
        ("1", (1, 2)),
        ("5", (1, 2)),
    ]
    assert result.report.dead_channels[0].constants == pytest.approx((0.7, -0.7))


@pytest.mark.parametrize(("objective", "pruned"), [("fewest", 2), ("speed", 0)])
def test_for_speed_the_block_of_channels_stays_whole(objective: Objective, pruned: int) -> None:
    model = network(channels=8)
    result = fold(model, (torch.randn(2, 2, 8, 8, dtype=torch.float64),), objective=objective, prune=True)
    first = next(w for w in result.program.state_dict.values() if w.dim() == 4 and w.shape[1] == 2)
    assert first.shape[0] == 8 - pruned


def test_the_model_keeps_its_channels() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model, (torch.randn(2, 2, 8, 8, dtype=torch.float64),), prune=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
