"""RepVGG-A0: three parallel branches that are one 3×3 convolution once it evaluates.

::

    x ─┬─ conv 3×3 ─ BN ─┐
       ├─ conv 1×1 ─ BN ─┼─ + ─ ReLU
       └─ BN ────────────┘          (only where input and output have the same shape)

State-dict keys are those of the authors' training-time checkpoints.

Source: Ding et al. 2021, RepVGG, tables 2 and 3.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import Tensor, nn

from model_export.architectures.initialisation import initialise

_STEM: Final = 48
_STAGES: Final = ((48, 2), (96, 4), (192, 14), (1280, 1))  # channels, blocks; the first has stride 2


class RepVggBlock(nn.Module):
    """One block with its branches apart, as it is trained."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None
        self.rbr_dense = _branch(inputs, outputs, 3, stride)
        self.rbr_1x1 = _branch(inputs, outputs, 1, stride)
        self.nonlinearity = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, outputs, H / stride, W / stride]."""
        total = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        result: Tensor = self.nonlinearity(total)
        return result


def _branch(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    rest = (RepVggBlock(outputs, outputs, 1) for _ in range(depth - 1))
    return nn.Sequential(RepVggBlock(inputs, outputs, 2), *rest)


class RepVggA0(nn.Module):
    """The smallest of its family.

    Args:
        input_shape: C, H, W.
        classes: K.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.stage0 = RepVggBlock(input_shape[0], _STEM, 2)
        (width1, depth1), (width2, depth2), (width3, depth3), (width4, depth4) = _STAGES
        self.stage1 = _stage(_STEM, width1, depth1)
        self.stage2 = _stage(width1, width2, depth2)
        self.stage3 = _stage(width2, width3, depth3)
        self.stage4 = _stage(width3, width4, depth4)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width4, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [N, K]."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stage0(x)))))
        logits: Tensor = self.linear(self.gap(x).flatten(1))
        return logits
