"""Our own modules: the article's BatchNorm layer and the step from pixels to the network's input.

::

    uint8 [N, H, W, C] ──PixelNormalization──▶ float32 [N, C, H, W] ──network──▶ logits [N, K]

    BatchNormActivation     y = act(γ · (x − μ) / √(σ² + ε) + β)        μ, σ² one value a channel

        training    μ, σ² of the batch, over every axis but the channel's; the moving averages follow
        evaluating  the moving averages: a constant affine map, which folding can remove
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.errors import ModelError

# Keras's defaults, which the article's layer takes over.
KERAS_MOMENTUM: Final = 0.99
KERAS_EPSILON: Final = 1e-3


class BatchNormActivation(nn.modules.batchnorm._BatchNorm):
    """The article's ``BNLayer``: batch normalisation with an optional ReLU behind it.

    The arguments are those of the Keras layer. Two conventions differ between the frameworks:

    * momentum: Keras keeps ``moving · m + batch · (1 − m)``, torch ``moving · (1 − m) + batch · m``.
      ``momentum`` is Keras's; the attribute of the same name holds torch's, ``1 − momentum``.
    * moving variance: Keras averages the biased batch variance (over n), torch the unbiased one (over
      n − 1). Torch's is kept: it estimates what the layer will meet when it evaluates.

    In evaluation `torch.export` sees one ``aten.batch_norm`` and, if fused, one ``aten.relu``.

    Args:
        channels: Size of the channel axis, C.
        axis: The channel axis, as in Keras, counting the batch axis; 1 is torch's layout, −1 Keras's.
            Statistics are taken over all others.
        momentum: The share of the old moving average that a batch leaves, 0 ≤ momentum < 1.
        epsilon: Added to the variance; > 0, since a constant channel would be divided by zero.
        center: Whether there is a β.
        scale: Whether there is a γ.
        fused_activation: What follows the affine map.

    Raises:
        ModelError: An argument out of its range.

    Source: Ioffe and Szegedy 2015, algorithms 1 and 2; Keras 3, ``BatchNormalization``.
    """

    def __init__(
        self,
        channels: int,
        axis: int = 1,
        momentum: float = KERAS_MOMENTUM,
        epsilon: float = KERAS_EPSILON,
        center: bool = True,
        scale: bool = True,
        fused_activation: Literal["relu"] | None = None,
    ) -> None:
        _check_arguments(axis, momentum, epsilon, fused_activation)
        super().__init__(channels, eps=epsilon, momentum=1 - momentum, bias=center)
        self.axis = axis
        self.fused_activation = fused_activation
        if not scale:
            self.affine = center
            self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """Back to γ = 1, β = 0 and fresh moving averages."""
        self.reset_running_stats()
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                nn.init.constant_(parameter, value)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own name for it)
        """Normalised ``input`` of the same shape: [N, …, C, …] with C at ``axis``."""
        axis = self.axis % input.dim()
        if axis == 1 or input.dim() < 2:
            normalised = super().forward(input)
        else:
            normalised = super().forward(input.movedim(axis, 1)).movedim(1, axis)
        return F.relu(normalised) if self.fused_activation == "relu" else normalised

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (likewise)
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ModelError(
                f"BatchNormActivation(axis={self.axis}) has {self.num_features} channels, "
                f"its input (channels second) the shape {tuple(input.shape)}"
            )

    def extra_repr(self) -> str:
        """The arguments, in Keras's convention."""
        return (
            f"{self.num_features}, axis={self.axis}, momentum={1 - (self.momentum or 0):g}, "
            f"epsilon={self.eps:g}, center={self.bias is not None}, scale={self.weight is not None}, "
            f"fused_activation={self.fused_activation}"
        )


def _check_arguments(axis: int, momentum: float, epsilon: float, fused_activation: str | None) -> None:
    if axis == 0:
        raise ModelError("BatchNormActivation: axis 0 is the batch, not the channels")
    if not 0 <= momentum < 1:
        raise ModelError(f"BatchNormActivation: momentum {momentum} is not in [0, 1)")
    if not epsilon > 0:
        raise ModelError(f"BatchNormActivation: epsilon {epsilon} is not positive")
    if fused_activation not in (None, "relu"):
        raise ModelError(f"BatchNormActivation: no fused activation '{fused_activation}'; 'relu' or None")


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every BatchNorm in ``model``, torch's and ours; InstanceNorm and the like are none."""
    return (part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` evaluates within the block; afterwards every part has its own mode again."""
    modes = {part: part.training for part in model.modules()}
    try:
        for part in modes:
            part.training = False  # not `.eval()`: the module of an exported program refuses it
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class PixelNormalization(nn.Module):
    """(pixels / 255 − mean) / std, and from channels last to channels first.

    Args:
        mean: Of pixels in 0…1, one value a channel.
        std: Likewise, each > 0.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        deviation = torch.tensor(std, dtype=torch.float64)
        scale = 1 / (255 * deviation)
        shift = -torch.tensor(mean, dtype=torch.float64) / deviation
        self.register_buffer("scale", scale.float().view(-1, 1, 1))
        self.register_buffer("shift", shift.float().view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] of ``images``, uint8 [N, H, W, C]; channels first in memory too.

        A network may hold a `view` that asks for that, and convolutions hand on the layout they are given.
        """
        first = images.permute(0, 3, 1, 2).to(self.scale.dtype, memory_format=torch.contiguous_format)
        return first * self.scale + self.shift
