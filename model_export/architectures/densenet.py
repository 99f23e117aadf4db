"""DenseNet-121: every layer sees the outputs of all earlier ones in its block.

::

    layer        x ─ BN ─ ReLU ─ conv 1×1 ─ BN ─ ReLU ─ conv 3×3 ─ concat with x
    transition   x ─ BN ─ ReLU ─ conv 1×1 (half the channels) ─ AvgPool 2

State-dict keys are torchvision's. Its published checkpoints spell some of them in an older way
(``norm.1`` for ``norm1``), which is understood when they are loaded.

Source: Huang et al. 2017, Densely Connected Convolutional Networks, table 1.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any, Final

import torch
from torch import Tensor, nn

from model_export.architectures.initialisation import initialise

_GROWTH: Final = 32
_BOTTLENECK: Final = 4 * _GROWTH
_DEPTHS: Final = (6, 12, 24, 16)
_STEM: Final = 64
_OLD_KEY: Final = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")


class DenseLayer(nn.Sequential):
    """Adds ``_GROWTH`` channels to its input."""

    def __init__(self, inputs: int) -> None:
        super().__init__(
            OrderedDict(
                norm1=nn.BatchNorm2d(inputs),
                relu1=nn.ReLU(inplace=True),
                conv1=nn.Conv2d(inputs, _BOTTLENECK, 1, bias=False),
                norm2=nn.BatchNorm2d(_BOTTLENECK),
                relu2=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(_BOTTLENECK, _GROWTH, 3, padding=1, bias=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """float [N, inputs + growth, H, W]."""
        new = x
        for step in self:
            new = step(new)
        return torch.cat([x, new], dim=1)


def _dense_block(inputs: int, depth: int) -> nn.Sequential:
    layers = ((f"denselayer{number + 1}", DenseLayer(inputs + number * _GROWTH)) for number in range(depth))
    return nn.Sequential(OrderedDict(layers))


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseNet121(nn.Module):
    """Four dense blocks with transitions between them.

    Args:
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(input_shape[0], _STEM, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(_STEM),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = _STEM
        for number, depth in enumerate(_DEPTHS, start=1):
            layers[f"denseblock{number}"] = _dense_block(channels, depth)
            channels += depth * _GROWTH
            if number < len(_DEPTHS):
                layers[f"transition{number}"] = _transition(channels)
                channels //= 2
        layers[f"norm{len(_DEPTHS) + 1}"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        initialise(self)
        # torch leaves this method unannotated
        self.register_load_state_dict_pre_hook(_rename_old_keys)  # type: ignore[no-untyped-call]  # torch does not annotate it

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        features = self.relu(self.features(x))
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def _rename_old_keys(_: nn.Module, state: dict[str, Any], *__: object) -> None:
    for key in list(state):
        state[_OLD_KEY.sub(r"\1\2.", key)] = state.pop(key)
