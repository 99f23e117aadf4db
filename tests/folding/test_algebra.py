"""The algebra by itself: every formula against the operators that it is about."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_export.folding import algebra
from model_export.folding.algebra import Affine, Interval

numbers = st.floats(-3, 3, allow_nan=False, width=32)
maps = st.tuples(numbers, numbers)


def affine(scale: float, shift: float) -> Affine:
    return Affine(torch.tensor([scale], dtype=torch.float64), torch.tensor([shift], dtype=torch.float64))


def close(left: Tensor, right: Tensor) -> bool:
    return bool(torch.allclose(left, right, rtol=1e-12, atol=1e-12))


@given(maps, maps, numbers)
def test_composition_is_one_after_the_other(
    first: tuple[float, float], second: tuple[float, float], z: float
) -> None:
    value = torch.tensor([z], dtype=torch.float64)
    assert close(affine(*second).after(affine(*first))(value), affine(*second)(affine(*first)(value)))


@given(maps.filter(lambda pair: abs(pair[0]) > 1e-3), numbers)
def test_the_inverse_takes_back(pair: tuple[float, float], z: float) -> None:
    value = torch.tensor([z], dtype=torch.float64)
    assert close(affine(*pair).inverse()(affine(*pair)(value)), value)


def test_nothing_takes_a_zero_scale_back() -> None:
    back = affine(0.0, 2.0).inverse()
    assert back.scale.item() == 0
    assert back.shift.isnan().all()
    assert affine(0.0, 2.0)(torch.tensor([torch.nan])).item() == 2


@given(maps, numbers, st.tuples(numbers, numbers).map(sorted))
def test_a_clip_then_a_map_is_the_map_then_a_clip(
    pair: tuple[float, float], z: float, ends: list[float]
) -> None:
    interval = Interval(*(torch.tensor([end], dtype=torch.float64) for end in ends))
    value = torch.tensor([z], dtype=torch.float64)
    assert close(affine(*pair)(interval(value)), interval.image(affine(*pair))(affine(*pair)(value)))


@given(numbers, st.tuples(numbers, numbers).map(sorted), st.tuples(numbers, numbers).map(sorted))
def test_two_clips_are_one(z: float, first: list[float], second: list[float]) -> None:
    one, two = (Interval(*(torch.tensor([e], dtype=torch.float64) for e in ends)) for ends in (first, second))
    value = torch.tensor([z], dtype=torch.float64)
    assert close(one.then(two)(value), two(one(value)))


def test_relu_map_relu_has_the_ends_of_the_table() -> None:
    scale = torch.tensor([2.0, 2.0, -2.0, -2.0, 0.0], dtype=torch.float64)
    shift = torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5], dtype=torch.float64)
    relu = Interval(torch.zeros(5, dtype=torch.float64), torch.full((5,), torch.inf, dtype=torch.float64))
    ends = relu.image(Affine(scale, shift)).then(relu)
    assert ends.low.tolist() == [0.5, 0, 0, 0, 0.5]
    assert ends.high.tolist() == [torch.inf, torch.inf, 0.5, 0, 0.5]


def test_batch_norm_is_torch_s_own() -> None:
    weight, bias, mean = torch.randn(3, 5, dtype=torch.float64)
    variance = torch.rand(5, dtype=torch.float64)
    images = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    scale, shift = algebra.batch_norm(weight, bias, mean, variance, 1e-3)
    expected = F.batch_norm(images, mean, variance, weight, bias, eps=1e-3)
    assert close(images * scale.reshape(1, 5, 1, 1) + shift.reshape(1, 5, 1, 1), expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_scales_on_either_side_of_a_kernel(groups: int, transposed: bool) -> None:
    inner, outer = torch.randn(4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    shape = (4, 6 // groups, 3, 3) if transposed else (6, 4 // groups, 3, 3)
    weight = torch.randn(shape, dtype=torch.float64)
    images = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    layer = F.conv_transpose2d if transposed else F.conv2d
    expected = layer(images * inner.reshape(1, 4, 1, 1), weight, groups=groups) * outer.reshape(1, 6, 1, 1)
    before = algebra.input_factors(inner, weight.shape, transposed=transposed, groups=groups)
    after = algebra.output_factors(outer, weight.shape, transposed=transposed, groups=groups)
    folded = weight * before * after
    assert close(layer(images, folded, groups=groups), expected)


def test_a_kernel_in_fewer_groups_is_the_same_layer() -> None:
    weight = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    images = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    spread = algebra.spread_groups(weight, 4, 2)
    assert close(F.conv2d(images, spread, groups=2), F.conv2d(images, weight, groups=4))


def test_a_small_kernel_in_a_large_one_is_the_same_layer() -> None:
    weight = torch.randn(3, 3, 1, 1, dtype=torch.float64)
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    large = algebra.embed_kernel(weight, (1, 1), (1, 1))
    assert close(F.conv2d(images, large, padding=1), F.conv2d(images, weight))


def test_compressed_keeps_only_what_varies() -> None:
    values = torch.arange(3.0).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert algebra.compressed(values).shape == (1, 3, 1, 1)
    assert algebra.compressed(torch.full((2, 3), torch.nan)).shape == (1, 1)


def test_sameness_sees_a_shift_beside_a_tiny_scale() -> None:
    assert not affine(1e-9, 0.0).same(affine(1e-9, 1e-12))
    assert affine(1.0, 0.0).same(affine(1.0, 1e-14))
