"""The counter, on programs whose count is plain to see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.counting import Census, census
from tests.folding.collection.judging import exported, quiet
from tests.folding.collection.wiring import Wired

S = torch.linspace(0.5, 2.0, 4).reshape(1, 4, 1, 1)
T = torch.linspace(-1.0, 1.0, 4).reshape(1, 4, 1, 1)
IMAGE = torch.arange(100.0).reshape(1, 4, 5, 5)


def census_of(expression: Callable[..., Tensor], **parts: nn.Module | Tensor) -> Census:
    """Of an expression of an image [2, 4, 5, 5]."""
    parts = {"s": S, "t": T, "image": IMAGE, **parts}
    return census(exported(Wired(expression, **parts).eval(), (torch.randn(2, 4, 5, 5),), None))


AFFINE: dict[str, tuple[Callable[..., Tensor], int]] = {
    "a product": (lambda m, x: x * m.s, 1),
    "a shift": (lambda m, x: x + m.t, 1),
    "a product and a shift are one": (lambda m, x: x * m.s + m.t, 1),
    "(x/255 − mean)/std is one": (lambda m, x: (x / 255 - m.t) / m.s, 1),
    "two, around a GELU": (lambda m, x: F.gelu(x * m.s) + m.t, 2),
    "two, of one value": (lambda m, x: F.gelu(x * m.s) * F.gelu(x * m.t), 2),
    "two, when the first has another use": (lambda m, x: F.gelu(y := x * m.s) + (y * m.s).relu(), 2),
    "a scalar": (lambda m, x: F.gelu(x * 0.5), 1),
    "constant minus value": (lambda m, x: 1 - x, 1),
    "a value twice": (lambda m, x: x + x, 1),
    "dropout between": (lambda m, x: F.dropout(x * m.s, training=False) + m.t, 1),
    "a shift spread over the image": (lambda m, x: x + m.t.expand(1, 4, 5, 5).contiguous(), 1),
    "a multiplying image": (lambda m, x: x * m.image, 1),
    "addcmul": (lambda m, x: torch.addcmul(m.t, x, m.s), 1),
    "lerp": (lambda m, x: torch.lerp(x, m.t, m.s), 1),
}
NOTHING: dict[str, Callable[..., Tensor]] = {
    "a sign": lambda m, x: -x,
    "a sign a channel": lambda m, x: x * torch.sign(m.t),
    "a constant map": lambda m, x: x + m.image,
    "times one": lambda m, x: x * 1.0,
    "plus nothing": lambda m, x: x + 0.0,
    "a clamp a channel": lambda m, x: torch.clamp(x, m.t, m.s),
    "arithmetic on weights": lambda m, x: F.conv2d(x, (m.image.reshape(4, 25) * 2 + 1)[:, :4, None, None]),
    "a product of values": lambda m, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "a constant divided by a value": lambda m, x: m.s / x,
    "a group norm's own": lambda m, x: F.group_norm(x, 2, m.s.flatten(), m.t.flatten()),
}


@pytest.mark.parametrize("name", AFFINE)
def test_affine_maps_are_counted(name: str) -> None:
    expression, expected = AFFINE[name]
    assert census_of(expression).affine_maps == expected


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_affine_map_is_not_counted(name: str) -> None:
    assert census_of(NOTHING[name]).affine_maps == 0


def test_normalisations_with_running_statistics_are_counted() -> None:
    kinds = {"bn": nn.BatchNorm2d(4), "tracked": nn.InstanceNorm2d(4, track_running_stats=True)}
    for kind in kinds.values():
        assert census_of(lambda m, x: m.norm(x), norm=kind).affine_maps == 1


def test_normalisations_by_the_data_are_not_counted() -> None:
    kinds = [nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)]
    for kind in kinds:
        assert census_of(lambda m, x: m.norm(x), norm=kind).affine_maps == 0


def test_a_depthwise_1x1_conv_is_an_affine_map() -> None:
    assert census_of(lambda m, x: m.conv(x), conv=nn.Conv2d(4, 4, 1, groups=4)).affine_maps == 1
    assert census_of(lambda m, x: m.conv(x), conv=nn.Conv2d(4, 4, 3, groups=4)).affine_maps == 0


def test_decomposing_a_program_does_not_change_its_count() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    ).eval()
    program = exported(model, (torch.randn(2, 4, 5, 5),), None)
    with quiet():
        decomposed = program.run_decompositions({})
    assert census(decomposed).affine_maps == census(program).affine_maps == 2


def test_multiply_adds_are_counted() -> None:
    grouped = nn.Conv2d(4, 8, 3, groups=2, bias=False)
    counted = census_of(lambda m, x: m.conv(x), conv=grouped)
    assert counted.macs == 2 * 8 * 9 * 9 * 2  # two images, eight 3×3 outputs, 3×3 taps, two channels a group
    assert counted.allowance == 2 * 8 * 9 * 9 * 3
    transposed = census_of(lambda m, x: m.conv(x), conv=nn.ConvTranspose2d(4, 6, 2, groups=2))
    assert transposed.macs == 2 * 25 * 4 * 3 * 4
