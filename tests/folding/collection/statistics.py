"""Random statistics for a BatchNorm, with every kind of channel that a fold can get wrong.

::

    kind       γ/√(σ²+ε)       what it catches
    positive   0.3 … 1.7       the ordinary channel
    negative   −1.7 … −0.3     a clip turned over, max taken for min
    tiny       ±1e-9           division by the scale, cancellation
    zero       0               a constant channel, division by zero

One channel in four has a variance of 1e-9, far below ε: forgetting ε multiplies it by a hundred.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Kind = Literal["positive", "negative", "tiny", "zero"]
Signs = tuple[Kind, ...]

MIXED: Signs = ("positive", "negative", "tiny", "zero", "negative", "positive")
POSITIVE: Signs = ("positive",)
NEGATIVE: Signs = ("negative",)
ZERO: Signs = ("zero",)
TINY: Signs = ("tiny",)
# For networks whose optimum divides by the scale: it is reached where every channel is alive.
ALIVE: Signs = ("positive", "negative")

TINY_SCALE = 1e-9
# The smallest scale that half precision still holds with some digits.
TINY_SCALE_HALF = 1e-4


def random_scale(channels: int, signs: Signs, tiny: float = TINY_SCALE) -> Tensor:
    """Scales [channels] of the given kinds, in a random order; every kind occurs if there is room."""
    magnitude = torch.empty(channels).uniform_(0.3, 1.7)
    factor = {"positive": 1.0, "negative": -1.0, "tiny": tiny, "zero": 0.0}
    factors = torch.tensor([factor[signs[i % len(signs)]] for i in range(channels)])
    return (magnitude * factors)[torch.randperm(channels)]


def random_affine(channels: int, signs: Signs = MIXED) -> tuple[Tensor, Tensor]:
    """A scale and a shift, [channels] each, for affine maps that are not spelled as a BatchNorm."""
    return random_scale(channels, signs), torch.randn(channels)


def randomise(model: nn.Module, signs: Signs, tiny: float = TINY_SCALE) -> None:
    """Give every tracked normalisation in ``model`` random statistics, in place.

    γ is drawn so that γ/√(σ²+ε) has the sizes of the table above, whatever the variance.
    """
    for module in model.modules():
        if isinstance(module, _NormBase) and module.running_var is not None:
            _randomise(module, signs, tiny)


def _randomise(norm: _NormBase, signs: Signs, tiny: float) -> None:
    channels = norm.num_features
    variance = torch.empty(channels).uniform_(0.3, 2.0)
    variance[torch.rand(channels) < 0.25] = 1e-9
    with torch.no_grad():
        if norm.affine:
            norm.weight.copy_(random_scale(channels, signs, tiny) * torch.sqrt(variance + norm.eps))
            norm.bias.copy_(torch.randn(channels))
        else:  # no γ to make up for a tiny variance
            variance.clamp_(min=0.3)
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(torch.randn(channels) * 0.5)
            norm.running_var.copy_(variance)
