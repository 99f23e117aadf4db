"""VGG-11 with BatchNorm: eight convolutions, three dense layers.

State-dict keys are torchvision's.

Source: Simonyan and Zisserman 2014, configuration A; the BatchNorms are torchvision's.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from model_export.architectures.initialisation import initialise

_STAGES: Final = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a MaxPool 2 after each
_GRID: Final = 7  # the dense layers see 7×7 positions, whatever the picture
_DENSE: Final = 4096


class Vgg11Bn(nn.Module):
    """The network.

    Args:
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for widths in _STAGES:
            for width in widths:
                conv = nn.Conv2d(channels, width, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(_GRID)
        self.classifier = nn.Sequential(
            nn.Linear(channels * _GRID * _GRID, _DENSE),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(_DENSE, _DENSE),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(_DENSE, classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
