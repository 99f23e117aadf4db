"""The article's network.

::

    [C, H, W] ─ Conv 32 3×3 same ─ ReLU ─ BN(+ReLU) ─ MaxPool 2
              ─ Conv 64 3×3 same ─ ReLU ─ BN(+ReLU) ─ MaxPool 2
              ─ Flatten ─ Dense 128 ─ ReLU ─ BN(+ReLU) ─ Dense K ─ logits

That is the article's own placing of the BatchNorms; a plan may put them before the activation, or
leave them out. The softmax is no part of it: training wants logits, and the model file has both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from torch import nn

from model_export.errors import ModelError
from model_export.layers import BatchNormActivation
from model_export.records import Placement

_SMALLEST_SIDE: Final = 4  # two poolings must leave a pixel

ARTICLE_PLACEMENTS: Final[Mapping[str, Placement]] = MappingProxyType(
    {"conv1": "after_activation", "conv2": "after_activation", "dense1": "after_activation"}
)


class ArticleCnn(nn.Sequential):
    """Two convolutional blocks and one dense block, each with its BatchNorm after the activation.

    Args:
        input_shape: C, H, W; H and W at least 4.
        classes: K.
        placements: Where each layer's BatchNorm stands, if not where the article has it.

    Raises:
        ModelError: The pictures are too small for two poolings.
    """

    slots: ClassVar[tuple[str, ...]] = tuple(ARTICLE_PLACEMENTS)  # the layers that can have a BatchNorm

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        placements: Mapping[str, Placement] = ARTICLE_PLACEMENTS,
    ) -> None:
        channels, height, width = input_shape
        if min(height, width) < _SMALLEST_SIDE:
            raise ModelError(f"article_cnn: {height}x{width} pictures are smaller than 4x4")
        features = 64 * (height // 4) * (width // 4)
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, 32, 3, padding="same"),
                **_activation(1, 32, placements["conv1"]),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, 3, padding="same"),
                **_activation(2, 64, placements["conv2"]),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                dense1=nn.Linear(features, 128),
                **_activation(3, 128, placements["dense1"]),
                dense2=nn.Linear(128, classes),
            )
        )


def _activation(number: int, channels: int, placement: Placement) -> dict[str, nn.Module]:
    relu: dict[str, nn.Module] = {f"relu{number}": nn.ReLU()}
    norm: dict[str, nn.Module] = {f"norm{number}": BatchNormActivation(channels, fused_activation="relu")}
    return {"none": relu, "before_activation": norm, "after_activation": relu | norm}[placement]
