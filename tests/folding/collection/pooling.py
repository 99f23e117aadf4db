"""Pools between a BatchNorm and the layer that absorbs it.

A maximum commutes with s > 0; with s < 0 it is −max(−…), so a sign remains. A mean commutes. A mean that
counts its zero padding sees the padding in the place of s·0 + t: one padding constant or constant map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import NEGATIVE, POSITIVE
from tests.folding.collection.wiring import Wired

MAXIMUM = "max(s·z) is s·max(z), with a sign around it where s < 0; the rest goes into the conv"
MEAN = "the mean of s·z + t is s·mean(z) + t"
CHANNELS = ((8, 8, 8),)


def pooled(pool: nn.Module, channels: int = 8) -> nn.Module:
    """Conv → pool → BN → GELU."""
    return nn.Sequential(nn.Conv2d(3, channels, 3), pool, nn.BatchNorm2d(channels), nn.GELU())


@network(fewest=0, why=MAXIMUM, signs=POSITIVE)
def max_pool_positive() -> nn.Module:
    return pooled(nn.MaxPool2d(2))


@network(fewest=0, why=MAXIMUM, signs=NEGATIVE)
def max_pool_negative() -> nn.Module:
    return pooled(nn.MaxPool2d(2))


@network(fewest=0, why=MAXIMUM)
def max_pool() -> nn.Module:
    return pooled(nn.MaxPool2d(2))


@network(fewest=0, why=MAXIMUM + "; max pooling pads with −∞, which is no value of the map")
def max_pool_padded_overlapping() -> nn.Module:
    return pooled(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True))


@network(fewest=0, why="the BatchNorm is a clamp before the pool: nothing has to pass it")
def relu_bn_max_pool() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.GELU())


@network(fewest=0, why=MAXIMUM + ", as a clamp")
def relu_max_pool_bn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=MAXIMUM + ", as a clamp, which takes the second ReLU in")
def relu_max_pool_bn_relu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sigmoid(),
    )


@network(fewest=0, why=MAXIMUM + ": one sign a BatchNorm")
def two_max_pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 2),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(8),
        nn.GELU(),
    )


@network(fewest=0, why=MAXIMUM, shapes=((3, 12),))
def max_pool1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.MaxPool1d(2), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=MAXIMUM)
def adaptive_max_pool() -> nn.Module:
    return pooled(nn.AdaptiveMaxPool2d(1))


@network(fewest=0, why="forward: s·maxpool(z) + t, or −|s|·maxpool(−z) + t, into the conv", shapes=CHANNELS)
def max_pool_before_conv() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why="forward through clamp, pool and sign into the conv", shapes=CHANNELS)
def relu_max_pool_before_conv() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.GELU())


@network(
    fewest=1, why="input and GELU absorb nothing; the map itself is one, before or after", shapes=CHANNELS
)
def max_pool_between_input_and_gelu() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.GELU())


@network(fewest=0, why=MEAN + "; backward into the conv")
def avg_pool() -> nn.Module:
    return pooled(nn.AvgPool2d(2))


@network(fewest=0, why=MEAN + "; padding that does not count changes nothing")
def avg_pool_not_counting_padding() -> nn.Module:
    return pooled(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False))


@network(fewest=0, why=MEAN + "; ceil_mode divides by what is there")
def avg_pool_ceil_mode() -> nn.Module:
    return pooled(nn.AvgPool2d(2, ceil_mode=True))


COUNTED = MEAN + "; padding the conv's image with t in the place of 0 (or one constant map) mends the border"


@network(fewest=0, why=COUNTED)
def avg_pool_counting_padding() -> nn.Module:
    return pooled(nn.AvgPool2d(3, stride=2, padding=1))


@network(fewest=0, why=COUNTED + "; after a clamp", shapes=((3, 10, 10),))
def relu_avg_pool_counting_padding() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2, padding=1), nn.BatchNorm2d(8), nn.GELU()
    )


@network(fewest=0, why="forward: s·pool(z) + t·pool(1), one constant map for the conv", shapes=CHANNELS)
def avg_pool_counting_padding_before_conv() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.AvgPool2d(2, padding=1), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why="a window's sum over 3: the scale commutes, the shift is 3/4 of t before the pool")
def avg_pool_other_divisor() -> nn.Module:
    return pooled(nn.AvgPool2d(2, divisor_override=3))


@network(fewest=0, why=MEAN, shapes=((3, 4, 6, 6),))
def avg_pool3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3), nn.AvgPool3d(2), nn.BatchNorm3d(8), nn.GELU())


@network(fewest=0, why=MEAN)
def adaptive_avg_pool() -> nn.Module:
    return pooled(nn.AdaptiveAvgPool2d(3))


@network(fewest=0, why=MEAN + "; the ReLU becomes a clamp")
def relu_global_avg_pool() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.GELU()
    )


@network(fewest=0, why=MEAN + "; spelled as a mean over the image")
def spatial_mean() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).mean((2, 3)))), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm1d(8)
    )


@network(fewest=0, why="the scale commutes with a sum; of the shift each of the 49 summands takes its part")
def spatial_sum() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).sum((2, 3)))), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm1d(8)
    )


@network(fewest=0, why="forward: s·max(z) + t, with a sign, into the Linear", shapes=CHANNELS)
def spatial_amax_before_linear() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.linear(m.bn(x).amax((2, 3)))), bn=nn.BatchNorm2d(8), linear=nn.Linear(8, 4)
    )
