"""The article's network.

::

    [C, H, W] ─ Conv 32 3×3 same ─ ReLU ─ BN(+ReLU) ─ MaxPool 2
              ─ Conv 64 3×3 same ─ ReLU ─ BN(+ReLU) ─ MaxPool 2
              ─ Flatten ─ Dense 128 ─ ReLU ─ BN(+ReLU) ─ Dense K ─ logits

The softmax is no part of it: training wants logits, and the model file has both.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from model_export.errors import ModelError
from model_export.layers import BatchNormActivation

_SMALLEST_SIDE = 4  # two poolings must leave a pixel


class ArticleCnn(nn.Sequential):
    """Two convolutional blocks and one dense block, each with its BatchNorm after the activation.

    Args:
        input_shape: C, H, W; H and W at least 4.
        classes: K.

    Raises:
        ModelError: The pictures are too small for two poolings.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        channels, height, width = input_shape
        if min(height, width) < _SMALLEST_SIDE:
            raise ModelError(f"article_cnn: {height}x{width} pictures are smaller than 4x4")
        features = 64 * (height // 4) * (width // 4)
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, 32, 3, padding="same"),
                relu1=nn.ReLU(),
                norm1=BatchNormActivation(32, fused_activation="relu"),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, 3, padding="same"),
                relu2=nn.ReLU(),
                norm2=BatchNormActivation(64, fused_activation="relu"),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                dense1=nn.Linear(features, 128),
                relu3=nn.ReLU(),
                norm3=BatchNormActivation(128, fused_activation="relu"),
                dense2=nn.Linear(128, classes),
            )
        )
