"""The algebra of folding, tensors → tensors: float64 inside, rounded once by the caller.

::

    BatchNorm, evaluating     v = s·z + t          s = γ/√(σ²+ε),  t = β − μ·s
    into a producer           W' = W·s[out],       b' = (b − μ)·s + β = b·s + t
    clip, then s·z + t        clip(s·z + t, L, H)  L and H are the images of the clip's ends
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class AffineMap:
    """``v = scale·z + shift``, one pair a channel: float64 [C] each."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Interval:
    """``clip(v, low, high)``, one pair of ends a channel: float64 [C] each, infinite where open."""

    low: Tensor
    high: Tensor

    def image(self, affine: AffineMap) -> Interval:
        """The ends after ``affine``: ``affine(clip(z, self)) = clip(affine(z), image)``."""
        ends = torch.stack([_image(self.low, affine), _image(self.high, affine)])
        return Interval(ends.amin(0), ends.amax(0))

    def then(self, later: Interval) -> Interval:
        """One clip for two: ``clip(clip(v, self), later)``."""
        low, high = (torch.clamp(end, later.low, later.high) for end in (self.low, self.high))
        return Interval(low, high)


def _image(end: Tensor, affine: AffineMap) -> Tensor:
    # 0 · ∞ is the constant channel: both ends land on the shift.
    return torch.where(affine.scale == 0, affine.shift, affine.scale * end + affine.shift)


def batch_norm(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> AffineMap:
    """What an evaluating BatchNorm does. Args: [C] each, any floating dtype; None: γ = 1, β = 0."""
    mean, variance = mean.double(), variance.double()
    gamma = torch.ones_like(mean) if weight is None else weight.double()
    beta = torch.zeros_like(mean) if bias is None else bias.double()
    scale = gamma / torch.sqrt(variance + epsilon)
    return AffineMap(scale, beta - mean * scale)


def scale_output(weight: Tensor, scale: Tensor, *, transposed: bool, groups: int) -> Tensor:
    """W·s[out].

    Args:
        weight: [O, I/groups, k…], or transposed [I, O/groups, k…]; Linear has no k.
        scale: [O].
        transposed: Whether this is a transposed convolution's weight.
        groups: Of the convolution.

    Returns:
        float64, the shape of ``weight``.
    """
    weight = weight.double()
    if not transposed:
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    grouped = weight.reshape(groups, -1, *weight.shape[1:])  # [groups, I/groups, O/groups, k…]
    scaled = grouped * scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return scaled.reshape(weight.shape)
