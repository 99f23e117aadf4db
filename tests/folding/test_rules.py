"""Every rule by itself: the operator between a BatchNorm and a layer, on the side that can take it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.folding import count_affine_maps, fold
from model_export.folding.rules import covered_operators
from tests.folding.networks import Applied, randomised, shuffled

Function = Callable[[Tensor], Tensor]

# A constant that differs from pixel to pixel.
IMAGE = torch.outer(torch.arange(6.0).sin(), torch.arange(6.0).cos())

# What a map passes on its way into the conv before it.
BACKWARD: dict[str, Function] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda z: z.clamp(-0.3, 0.8),
    "clamp from above": lambda z: z.clamp(max=0.4),
    "threshold": lambda z: F.threshold(z, 0.1, 0.1),
    "maximum of a constant": lambda z: torch.maximum(z, torch.tensor(0.2, dtype=z.dtype)),
    "max pool": lambda z: F.max_pool2d(z, 2),
    "adaptive max pool": lambda z: F.adaptive_max_pool2d(z, 2),
    "avg pool": lambda z: F.avg_pool2d(z, 2),
    "avg pool counting its padding": lambda z: F.avg_pool2d(z, 3, stride=2, padding=1),
    "mean": lambda z: z.mean((2, 3), keepdim=True),
    "nearest": lambda z: F.interpolate(z, scale_factor=2),
    "bilinear": lambda z: F.interpolate(z, scale_factor=2, mode="bilinear"),
    "dropout": lambda z: F.dropout(z, 0.5, training=False),
    "shuffle": shuffled,
    "flip": lambda z: z.flip(2),
    "crop": lambda z: z[:, :, 1:, :-1],
    "concat": lambda z: torch.cat([z[:, 2:], z[:, :2]], 1),
    "zero pad": lambda z: F.pad(z, (1, 2, 0, 1)),
    "reflecting pad": lambda z: F.pad(z, (1, 1, 1, 1), mode="reflect"),
    "sum with itself": lambda z: z + 0.5 * z,
    "map over the image": lambda z: z + IMAGE.to(z.dtype),
}
# What it passes on its way into the conv behind it; the input in front takes nothing.
FORWARD: dict[str, Function] = {
    name: BACKWARD[name]
    for name in ("relu", "hardtanh", "avg pool", "nearest", "shuffle", "flip", "zero pad", "reflecting pad")
} | {"max pool": BACKWARD["max pool"], "sigmoid gate": lambda z: z.clamp(min=0)}


def images(channels: int = 4) -> Tensor:
    return torch.randn(2, channels, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def check(model: nn.Module, left: int) -> None:
    """Folded exactly, with so many maps left."""
    result = fold(model, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        expected, folded = model(images()), result.program.module()(images())
    assert (folded - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert count_affine_maps(result.program) == result.report.affine_maps_left == left


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_into_the_conv_before(name: str) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 4, 3, padding=1), Applied(BACKWARD[name]), nn.BatchNorm2d(4), nn.GELU()
    check(randomised(nn.Sequential(*layers), torch.Generator().manual_seed(3)), 0)


@pytest.mark.parametrize("name", FORWARD)
def test_forward_into_the_conv_behind(name: str) -> None:
    torch.manual_seed(0)
    layers = nn.BatchNorm2d(4), Applied(FORWARD[name]), nn.Conv2d(4, 4, 3, padding=1), nn.GELU()
    check(randomised(nn.Sequential(*layers), torch.Generator().manual_seed(3)), 0)


@pytest.mark.parametrize("slope", [nn.LeakyReLU(0.2), nn.PReLU(4)], ids=["leaky relu", "prelu"])
def test_a_slope_takes_the_scale_and_the_next_layer_the_shift(slope: nn.Module) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 4, 3), slope, nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GELU()
    check(randomised(nn.Sequential(*layers), torch.Generator().manual_seed(3)), 0)


@pytest.mark.parametrize("blocking", [F.gelu, F.silu, torch.sigmoid, torch.tanh], ids=lambda f: f.__name__)
def test_what_bends_every_value_lets_nothing_pass(blocking: Function) -> None:
    layers = Applied(blocking), nn.BatchNorm2d(4), Applied(blocking)
    check(randomised(nn.Sequential(*layers), torch.Generator().manual_seed(3)), 1)


def test_every_rule_is_of_a_real_operator() -> None:
    assert len(covered_operators()) > 80
    assert all(name.startswith("aten.") for name in covered_operators())
