"""The algebra of folding, tensors → tensors: float64 throughout, rounded once by whoever stores the result.

::

    affine map                v ↦ s·v + t                     one s and t a channel, or finer
    BatchNorm, evaluating     s = γ/√(σ²+ε),  t = β − μ·s
    composition               (s₂, t₂) ∘ (s₁, t₁) = (s₂·s₁, s₂·t₁ + t₂)
    clip, then s·v + t        clip(s·v + t, L, H)             L and H are the images of the clip's ends
    linear layer              (W·s)x + b + W·t                for an input s·x + t
                              (s·W)x + s·b + t                for an output s·y + t

Every map has the rank of the tensor it belongs to and size 1 along each axis on which it does not vary, so it
broadcasts: ``[1, C, 1, 1]`` is "one a channel". NaN as a shift means *unknown*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Two maps closer than this are one: the rounding of a few float64 operations on values near 1.
_SAME = 1e-12


@dataclass(frozen=True, eq=False, slots=True)
class Affine:
    """``v ↦ scale·v + shift``, float64, of the rank of v, broadcast over it."""

    scale: Tensor
    shift: Tensor

    @staticmethod
    def identity(rank: int) -> Affine:
        """``v ↦ v`` for tensors of this rank."""
        return Affine(
            torch.ones([1] * rank, dtype=torch.float64), torch.zeros([1] * rank, dtype=torch.float64)
        )

    def __call__(self, value: Tensor) -> Tensor:
        """The image of a constant. A zero scale forgets its input, even an unknown or infinite one."""
        return torch.where(self.scale == 0, self.shift, self.scale * value + self.shift)

    def after(self, first: Affine) -> Affine:
        """self ∘ first."""
        scale = self.scale * first.scale
        return Affine(scale, self(first.shift))

    def inverse(self) -> Affine:
        """The map back; where the scale is zero there is none: scale 0, shift unknown."""
        lost = self.scale == 0
        scale = torch.where(lost, 0.0, 1.0 / torch.where(lost, 1.0, self.scale))
        return Affine(scale, torch.where(lost, torch.nan, -self.shift * scale))

    def same(self, other: Affine, known: Tensor | None = None) -> bool:
        """Whether both maps agree, on the values ``known`` where these are given and not NaN.

        Args:
            other: A map of the same rank.
            known: Constants, NaN where the value varies; broadcasts with the maps.
        """
        scales = _close(self.scale, other.scale)
        varies = known is None or (known.numel() == 1 and bool(known.isnan()))
        if varies and not bool(scales.all()):
            return False
        # A shift is seen beside the values it moves, which the scale has made large or small.
        shifts = _close(self.shift, other.shift, beside=torch.maximum(self.scale.abs(), other.scale.abs()))
        if known is None or varies:
            return bool(shifts.all())
        images = _close(self(known), other(known))
        return bool(torch.where(known.isnan(), scales & shifts, images).all())

    @property
    def is_identity(self) -> bool:
        """Whether this is ``v ↦ v``."""
        return self.same(Affine.identity(self.scale.dim()))

    @property
    def is_sign(self) -> bool:
        """Whether this only turns signs over: scale ±1, no shift."""
        return self.same(Affine(torch.sign(self.scale), torch.zeros_like(self.shift)))

    @property
    def has_shift(self) -> bool:
        """Whether some shift is not zero."""
        return bool((self.shift != 0).any())


def _close(left: Tensor, right: Tensor, beside: Tensor | float = 0.0) -> Tensor:
    size = torch.maximum(left.abs(), right.abs()) + beside
    return (left == right) | ((left - right).abs() <= _SAME * size) | (left.isnan() & right.isnan())


@dataclass(frozen=True, eq=False, slots=True)
class Interval:
    """``clip(v, low, high)``: float64 ends that broadcast like an `Affine`, infinite where open."""

    low: Tensor
    high: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """The clip of a constant; NaN stays NaN."""
        return torch.clamp(value, self.low, self.high)

    @property
    def is_from_below(self) -> bool:
        """Whether no channel is cut from above, but for those that are constant."""
        low, high = broadcast(self.low, self.high)
        return bool((high.isinf() | (low == high)).all())

    def image(self, affine: Affine) -> Interval:
        """The ends after ``affine``: ``affine(clip(v, self)) = clip(affine(v), image)``."""
        first, second = broadcast(affine(self.low), affine(self.high))
        return Interval(torch.minimum(first, second), torch.maximum(first, second))

    def then(self, later: Interval) -> Interval:
        """One clip for two: ``clip(clip(v, self), later)``."""
        return Interval(later(self.low), later(self.high))

    def where(self, constant: Tensor) -> Interval:
        """This clip, but ``constant`` itself where that is not NaN."""
        low, high = (torch.where(constant.isnan(), end, constant) for end in (self.low, self.high))
        return Interval(low, high)


def broadcast(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with their common shape."""
    first, second = torch.broadcast_tensors(left, right)  # type: ignore[no-untyped-call]  # torch's own gap
    return first, second


def batch_norm(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift [C] of an evaluating BatchNorm. Args: [C] each, float64; None: γ = 1, β = 0."""
    scale = torch.rsqrt(variance + epsilon)
    if weight is not None:
        scale = weight * scale
    shift = -mean * scale
    return scale, shift if bias is None else bias + shift


def along(values: Tensor, axis: int, rank: int) -> Tensor:
    """[C] as a tensor of ``rank`` axes that varies along ``axis``."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def compressed(values: Tensor) -> Tensor:
    """The same values with size 1 along every axis on which they do not vary (NaN equals NaN)."""
    for axis, size in enumerate(values.shape):
        if size <= 1:
            continue
        first = values.narrow(axis, 0, 1)
        if bool(((values == first) | (values.isnan() & first.isnan())).all()):
            values = first
    return values


def varying_axes(*tensors: Tensor) -> set[int]:
    """The axes along which one of these tensors of equal rank has more than one value."""
    return {axis for tensor in tensors for axis, size in enumerate(tensor.shape) if size > 1}


def input_factors(scale: Tensor, shape: Sequence[int], *, transposed: bool, groups: int) -> Tensor:
    """What a weight is multiplied by for W·s[in]; broadcasts with it.

    Args:
        scale: [I], or [1]; float64.
        shape: Of the weight: [O, I/groups, k…], transposed [I, O/groups, k…]; a Linear has no k.
        transposed: Whether this is a transposed convolution's weight.
        groups: Of the convolution.
    """
    if transposed or scale.numel() == 1:
        return along(scale, 0, len(shape))
    return _grouped_rows(scale, shape, groups)  # [g, 1, I/g] for each of [g, O/g, I/g]


def output_factors(scale: Tensor, shape: Sequence[int], *, transposed: bool, groups: int) -> Tensor:
    """What a weight is multiplied by for W·s[out]. Args as for `input_factors`, with ``scale`` [O] or [1]."""
    if not transposed or scale.numel() == 1:
        return along(scale, 0, len(shape))
    return _grouped_rows(scale, shape, groups)  # [g, 1, O/g] for each of [g, I/g, O/g]


def _grouped_rows(scale: Tensor, shape: Sequence[int], groups: int) -> Tensor:
    """One number for each of the second axis's channels, other ones in each group of the first axis's."""
    if groups == 1:
        return along(scale, 1, len(shape))
    rows = scale.reshape(groups, 1, -1).expand(groups, shape[0] // groups, -1)
    return rows.reshape(*shape[:2], *[1] * (len(shape) - 2))


def embed_kernel(weight: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """A kernel [O, I, k…] in a larger one: zeros in front of and behind it along each spatial axis."""
    padding = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return torch.nn.functional.pad(weight, padding)


def spread_groups(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """A grouped kernel [O, I/groups, k…] as one of ``wanted`` groups, a divisor: zeros between groups."""
    ratio = groups // wanted
    out, inputs = weight.shape[0] // groups, weight.shape[1]
    blocks = weight.reshape(wanted, ratio, out, inputs, *weight.shape[2:])
    spread = weight.new_zeros(wanted, ratio, out, ratio, inputs, *weight.shape[2:])
    for block in range(ratio):
        spread[:, block, :, block] = blocks[:, block]
    return spread.reshape(weight.shape[0], ratio * inputs, *weight.shape[2:])
