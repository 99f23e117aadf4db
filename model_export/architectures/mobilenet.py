"""MobileNetV2: depthwise convolutions between a 1×1 expansion and a linear 1×1 projection.

::

    x ─ conv 1×1 (·t) ─ BN ─ ReLU6 ─ depthwise 3×3 ─ BN ─ ReLU6 ─ conv 1×1 ─ BN ─ (+ x)

State-dict keys are torchvision's.

Source: Sandler et al. 2018, MobileNetV2, table 2.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from model_export.architectures.initialisation import initialise

_STAGES: Final = (  # expansion t, channels c, repeats n, stride s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM: Final = 32
_HEAD: Final = 1280


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """One block; it has a shortcut where its output has the shape of its input."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.has_shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv_bn_relu6(inputs, hidden, 1)] if expansion != 1 else []),
            _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float [N, outputs, H / stride, W / stride]."""
        result: Tensor = self.conv(x)
        return x + result if self.has_shortcut else result


class MobileNetV2(nn.Module):
    """The network of width 1.

    Args:
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(input_shape[0], _STEM, 3, 2)]
        channels = _STEM
        for expansion, width, repeats, stride in _STAGES:
            for position in range(repeats):
                layers.append(InvertedResidual(channels, width, stride if position == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, _conv_bn_relu6(channels, _HEAD, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_HEAD, classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
