"""Residual networks: for large pictures, for CIFAR-sized ones, and with the BatchNorm up front.

::

    basic        x ─ conv 3×3 ─ BN ─ ReLU ─ conv 3×3 ─ BN ─ + ─ ReLU
                 └─────────── (conv 1×1 ─ BN) ─────────────┘
    bottleneck   x ─ conv 1×1 ─ BN ─ ReLU ─ conv 3×3 ─ BN ─ ReLU ─ conv 1×1 ─ BN ─ + ─ ReLU
    preact       x ─ BN ─ ReLU ─ conv 3×3 ─ BN ─ ReLU ─ conv 3×3 ─ +
                          └────────── (conv 1×1) ──────────────────┘

State-dict keys are torchvision's; for the CIFAR networks those of the checkpoints in the same style
(1×1 convolutions in the shortcuts, the paper's option B).

Source: He et al. 2015, Deep Residual Learning, tables 1 and 6; He et al. 2016, Identity Mappings, fig. 4e.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from model_export.architectures.initialisation import initialise


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class _Block(nn.Module, ABC):
    """What basic and bottleneck block share: the shortcut."""

    expansion: ClassVar[int]
    relu: nn.Module
    downsample: nn.Module | None

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """float [N, width · expansion, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(self.residual(x) + shortcut)
        return result


class BasicBlock(_Block):
    """Two 3×3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.bn2(self.conv2(x))
        return result


class Bottleneck(_Block):
    """1×1 down, 3×3 (which takes the stride, as in torchvision), 1×1 up."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(inputs, outputs, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.bn3(self.conv3(x))
        return result


class ResNet(nn.Module):
    """The network for large pictures: a 7×7 stem, four stages.

    Args:
        block: Its building block.
        depths: Blocks a stage.
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        input_shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, depths[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class CifarResNet(nn.Module):
    """The network for small pictures: a 3×3 stem, three stages of 16, 32 and 64 channels.

    Args:
        depth: Layers with weights along the main path, 6n + 2.
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, depth: int, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = _conv3x3(input_shape[0], 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(BasicBlock, 16, 16, blocks, 1)
        self.layer2 = _stage(BasicBlock, 16, 32, blocks, 2)
        self.layer3 = _stage(BasicBlock, 32, 64, blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class PreactBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3×3 convolutions; the sum stays as it is."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3x3(inputs, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(_conv1x1(inputs, width, stride))

    def forward(self, x: Tensor) -> Tensor:
        """float [N, width, H / stride, W / stride]."""
        activated = self.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        result: Tensor = self.conv2(self.relu(self.bn2(self.conv1(activated)))) + shortcut
        return result


class PreactResNet18(nn.Module):
    """Eight pre-activation blocks on a 3×3 stem, for small pictures.

    Args:
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(input_shape[0], 64)
        self.layer1 = _stage(PreactBlock, 64, 64, 2, 1)
        self.layer2 = _stage(PreactBlock, 64, 128, 2, 2)
        self.layer3 = _stage(PreactBlock, 128, 256, 2, 2)
        self.layer4 = _stage(PreactBlock, 256, 512, 2, 2)
        self.bn = nn.BatchNorm2d(512)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(512, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        logits: Tensor = self.linear(self.avgpool(self.relu(self.bn(x))).flatten(1))
        return logits


def _stage(
    block: type[BasicBlock | Bottleneck | PreactBlock], inputs: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    first = block(inputs, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(depth - 1)))
