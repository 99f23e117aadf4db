"""Folds that are wrong on purpose: the judge must reject each, and for the right reason.

::

    flaws      one conv and its BatchNorm folded by hand, with one slip in the algebra
    cheats     a program that is exact but not folded: the map is hidden, the layer doubled, …
    blunders   what public tools get wrong in silence
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.utils import fusion

from tests.folding.collection import COLLECTION
from tests.folding.collection.judging import Folder, exported, judge
from tests.folding.collection.registry import DynamicShapes
from tests.folding.collection.wiring import Wired

Rewrite = Callable[[nn.Module], nn.Module]


def folder(rewrite: Rewrite) -> Folder:
    """A fold that rewrites a copy of the model and exports it."""

    def fold(model: nn.Module, inputs: tuple[Tensor, ...], dynamic: DynamicShapes | None) -> ExportedProgram:
        return exported(rewrite(copy.deepcopy(model)), inputs, dynamic)

    return fold


def complaints(name: str, rewrite: Rewrite, dtype: torch.dtype = torch.float64) -> str:
    """What the judge says of the rewritten network."""
    return "; ".join(judge(COLLECTION[name], folder(rewrite), dtype).complaints)


@dataclass(frozen=True)
class Parts:
    """A conv's weight and bias and a BatchNorm's γ, β, μ, σ², ε."""

    weight: Tensor
    bias: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


def fold_pair(parts: Parts, axis: int = 0) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one conv that does both; ``axis``: the weight's out axis."""
    scale = parts.gamma / torch.sqrt(parts.variance + parts.epsilon)
    shape = [1] * parts.weight.dim()
    shape[axis] = -1
    return parts.weight * scale.reshape(shape), (parts.bias - parts.mean) * scale + parts.beta


def applied_twice(parts: Parts) -> tuple[Tensor, Tensor]:
    weight, bias = fold_pair(parts)
    return fold_pair(replace(parts, weight=weight, bias=bias))


def rounded_to_float32(parts: Parts) -> tuple[Tensor, Tensor]:
    weight, bias = fold_pair(parts)
    return weight.float().double(), bias.float().double()


FLAWS: dict[str, Callable[[Parts], tuple[Tensor, Tensor]]] = {
    "epsilon forgotten": lambda p: fold_pair(replace(p, epsilon=0.0)),
    "mean forgotten": lambda p: fold_pair(replace(p, mean=torch.zeros_like(p.mean))),
    "beta forgotten": lambda p: fold_pair(replace(p, beta=torch.zeros_like(p.beta))),
    "gamma forgotten": lambda p: fold_pair(replace(p, gamma=torch.ones_like(p.gamma))),
    "gamma's sign forgotten": lambda p: fold_pair(replace(p, gamma=p.gamma.abs())),
    "variance taken for deviation": lambda p: fold_pair(replace(p, variance=p.variance**2)),
    "bias not scaled": lambda p: (fold_pair(p)[0], p.bias + fold_pair(replace(p, bias=0 * p.bias))[1]),
    "weight not scaled": lambda p: (p.weight, fold_pair(p)[1]),
    "channels rotated": lambda p: fold_pair(replace(p, gamma=p.gamma.roll(1))),
    "applied twice": applied_twice,
    "rounded to float32": rounded_to_float32,
}


def parts_of(model: nn.Module) -> Parts:
    """Of a Sequential that starts with a conv and a BatchNorm."""
    conv, bn = model.get_submodule("0"), model.get_submodule("1")
    assert isinstance(bn, nn.BatchNorm2d)
    bias = conv.get_parameter("bias")
    mean, variance = bn.get_buffer("running_mean"), bn.get_buffer("running_var")
    return Parts(conv.get_parameter("weight"), bias, bn.weight, bn.bias, mean, variance, bn.eps)


def with_pair(fold: Callable[[Parts], tuple[Tensor, Tensor]]) -> Rewrite:
    """Conv → BN → … with the pair folded by ``fold``."""

    def rewrite(model: nn.Module) -> nn.Module:
        assert isinstance(model, nn.Sequential)
        with torch.no_grad():
            weight, bias = fold(parts_of(model))
            model.get_parameter("0.weight").copy_(weight)
            model.get_parameter("0.bias").copy_(bias)
        return nn.Sequential(model[0], *list(model)[2:])

    return rewrite


def test_a_right_fold_is_accepted() -> None:
    assert complaints("conv2d", with_pair(fold_pair)) == ""
    assert complaints("conv2d_half", with_pair(fold_pair), torch.half) == ""
    assert complaints("conv_transpose2d_square", with_pair(lambda p: fold_pair(p, axis=1))) == ""


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_slip_in_the_algebra_is_rejected(flaw: str) -> None:
    assert complaints("conv2d", with_pair(FLAWS[flaw])).startswith("error")


def test_the_in_axis_of_a_transposed_conv_is_rejected() -> None:
    assert complaints("conv_transpose2d_square", with_pair(fold_pair)).startswith("error")


def unfolded(model: nn.Module) -> nn.Module:
    return model


def as_depthwise_conv(model: nn.Module) -> nn.Module:
    """The BatchNorm as a depthwise 1×1 conv."""
    assert isinstance(model, nn.Sequential)
    parts = parts_of(model)
    depthwise = nn.Conv2d(8, 8, 1, groups=8, dtype=parts.weight.dtype)
    with torch.no_grad():
        ones = replace(parts, weight=torch.ones_like(depthwise.weight), bias=0 * parts.bias)
        weight, bias = fold_pair(ones)
        depthwise.weight.copy_(weight)
        depthwise.get_parameter("bias").copy_(bias)
    return nn.Sequential(model[0], depthwise, *list(model)[2:])


def shift_spread_out(model: nn.Module) -> nn.Module:
    """The scale in the weights, the shift as an image of constants."""
    assert isinstance(model, nn.Sequential)
    weight, bias = (t.detach() for t in fold_pair(parts_of(model)))
    image = bias.reshape(1, -1, 1, 1).expand(1, 8, 7, 7).contiguous()
    return Wired(lambda m, x: F.gelu(F.conv2d(x, m.weight) + m.image), weight=weight, image=image)


def as_dense_product(model: nn.Module) -> nn.Module:
    """The BatchNorm as a product with a diagonal matrix."""
    assert isinstance(model, nn.Sequential)
    parts = parts_of(model)
    diagonal, bias = fold_pair(replace(parts, weight=torch.eye(8).double(), bias=0 * parts.bias))
    return Wired(
        lambda m, x: F.gelu(F.linear(m.conv(x).movedim(1, 3), m.weight, m.bias).movedim(3, 1)),
        conv=model[0],
        weight=diagonal.detach(),
        bias=bias.detach(),
    )


def as_prelu(model: nn.Module) -> nn.Module:
    """The BatchNorm's scale as a PReLU that every value passes on its left side."""
    assert isinstance(model, nn.Sequential)
    parts = parts_of(model)
    scale = (parts.gamma / torch.sqrt(parts.variance + parts.epsilon)).detach()
    offset = torch.full_like(scale, 1e6)
    return Wired(
        lambda m, x: F.gelu(F.prelu(F.conv2d(x, m.weight, m.bias), m.scale) + m.shift),
        weight=parts.weight.detach(),
        bias=(parts.bias - parts.mean - offset).detach(),
        scale=scale,
        shift=(parts.beta + offset * scale).detach().reshape(1, -1, 1, 1),
    )


CHEATS: dict[str, tuple[Rewrite, str]] = {
    "left as it is": (unfolded, "1 affine maps left"),
    "hidden in a depthwise conv": (as_depthwise_conv, "1 affine maps left"),
    "hidden in a constant image": (shift_spread_out, "1 affine maps left"),
    "hidden in a diagonal matrix": (as_dense_product, "computes more"),
    "hidden in a PReLU": (as_prelu, "activations became"),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_hidden_map_is_found(cheat: str) -> None:
    rewrite, reason = CHEATS[cheat]
    assert reason in complaints("conv2d", rewrite)


def merged(model: nn.Module) -> nn.Conv2d:
    """The submodules ``conv`` and ``bn`` as one conv."""
    conv, bn = model.get_submodule("conv"), model.get_submodule("bn")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    return fusion.fuse_conv_bn_eval(conv, bn)


def twice_computed(model: nn.Module) -> nn.Module:
    """One conv for the output, another for the BatchNorm."""
    folded = merged(model)
    return Wired(
        lambda m, x: (F.gelu(m.folded(x)), m.conv(x)), folded=folded, conv=model.get_submodule("conv")
    )


def widened(model: nn.Module) -> nn.Module:
    """One conv with both sets of outputs: the layer twice, in one operator."""
    conv, folded = model.get_submodule("conv"), merged(model)
    both = [torch.cat([m.get_parameter(n) for m in (folded, conv)]).detach() for n in ("weight", "bias")]
    return Wired(
        lambda m, x: (F.gelu((z := F.conv2d(x, m.weight, m.bias))[:, :8]), z[:, 8:]),
        weight=both[0],
        bias=both[1],
    )


def output_folded_too(model: nn.Module) -> nn.Module:
    """Folded in place, though the conv's own output is wanted: what pattern matchers do."""
    folded = merged(model)
    return Wired(lambda m, x: (F.gelu(z := m.folded(x)), z), folded=folded)


def matched_by_size(model: nn.Module) -> nn.Module:
    """Linear → BatchNorm over tokens, folded as if it were over features."""
    linear, bn = model.get_submodule("0"), model.get_submodule("1")
    assert isinstance(linear, nn.Linear)
    assert isinstance(bn, nn.BatchNorm1d)
    return nn.Sequential(fusion.fuse_linear_bn_eval(linear, bn), nn.GELU())


def border_forgotten(model: nn.Module) -> nn.Module:
    """BN → zero-padded conv, folded as if nothing were padded."""
    assert isinstance(model, nn.Sequential)
    parts = parts_of(nn.Sequential(model[1], model[0]))
    scale, shift = fold_pair(replace(parts, weight=torch.ones_like(parts.mean), bias=0 * parts.mean))
    with torch.no_grad():
        parts.bias.add_(torch.einsum("oikl,i->o", parts.weight, shift))
        parts.weight.mul_(scale.reshape(1, -1, 1, 1))
    return nn.Sequential(model[1], nn.GELU())


def clip_not_turned_over(model: nn.Module) -> nn.Module:
    """Conv → ReLU → BN as conv′ → max(·, t), also where s < 0."""
    assert isinstance(model, nn.Sequential)
    parts = parts_of(nn.Sequential(model[0], model[2]))
    weight, bias = fold_pair(parts)
    low = fold_pair(replace(parts, bias=torch.zeros_like(parts.bias)))[1]
    return Wired(
        lambda m, x: F.gelu(torch.clamp(F.conv2d(x, m.weight, m.bias), min=m.low)),
        weight=weight.detach(),
        bias=bias.detach(),
        low=low.detach().reshape(1, -1, 1, 1),
    )


def sign_lost_in_pool(model: nn.Module) -> nn.Module:
    """Conv → max pool → BN as conv′ → max pool, also where s < 0."""
    assert isinstance(model, nn.Sequential)
    pair = with_pair(fold_pair)(nn.Sequential(model[0], model[2]))
    return nn.Sequential(pair, model[1], model[3])


def folded_for_both_calls(model: nn.Module) -> nn.Module:
    """A conv called with and without a BatchNorm, folded once for both."""
    folded = merged(model)
    model.add_module("conv", folded)
    model.add_module("bn", nn.Identity())
    return model


BLUNDERS: dict[str, tuple[str, Rewrite, str]] = {
    "a conv computed twice": ("conv_is_also_an_output", twice_computed, "computes more"),
    "a conv with twice the outputs": ("conv_is_also_an_output", widened, "computes more"),
    "a conv that is also an output": ("conv_is_also_an_output", output_folded_too, "error"),
    "tokens taken for features": ("linear_over_tokens_sizes_match", matched_by_size, "error"),
    "the zero border forgotten": ("into_padded_conv2d", border_forgotten, "error"),
    "a clip not turned over": ("after_relu", clip_not_turned_over, "error"),
    "a sign lost in a pool": ("max_pool", sign_lost_in_pool, "error"),
    "folded for both calls": ("conv_called_with_and_without_map", folded_for_both_calls, "error"),
}


@pytest.mark.parametrize("blunder", BLUNDERS)
def test_a_wrong_pattern_is_rejected(blunder: str) -> None:
    name, rewrite, reason = BLUNDERS[blunder]
    assert reason in complaints(name, rewrite)


def test_another_dtype_is_rejected() -> None:
    def widen(model: nn.Module) -> nn.Module:
        model = with_pair(fold_pair)(model).float()
        return Wired(lambda m, x: m.inner(x.float()), inner=model)

    assert "became torch.float32" in complaints("conv2d_half", widen, torch.half)


def test_a_modified_model_is_rejected() -> None:
    def fold(model: nn.Module, inputs: tuple[Tensor, ...], dynamic: DynamicShapes | None) -> ExportedProgram:
        program = folder(with_pair(fold_pair))(model, inputs, dynamic)
        with torch.no_grad():
            model.get_parameter("1.weight").mul_(2)
        return program

    assert judge(COLLECTION["conv2d"], fold).complaints == ("the model passed in was modified",)


def test_a_frozen_batch_is_rejected() -> None:
    def fold(model: nn.Module, inputs: tuple[Tensor, ...], dynamic: DynamicShapes | None) -> ExportedProgram:
        return folder(with_pair(fold_pair))(model, inputs, None)

    assert complaints_of(fold).startswith("error inf")


def complaints_of(fold: Folder) -> str:
    """What the judge says of ``fold`` on the plain conv."""
    return "; ".join(judge(COLLECTION["conv2d"], fold).complaints)
