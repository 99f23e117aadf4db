"""Half precision and float64: computed in float64, rounded once, the dtype kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.wiring import Wired, per_channel

CHANNELS = ((8, 7, 7),)


@network(fewest=0, why="into the conv, in half precision", dtype=torch.half)
def conv2d_half() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why="a clamp, in half precision", dtype=torch.half)
def after_relu_half() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=0,
    why="forward into the conv; −t/s may be more than half precision holds",
    shapes=CHANNELS,
    dtype=torch.half,
)
def into_padded_conv2d_half() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(
    fewest=0,
    why="a clamp at −t/s, which may be more than half precision holds",
    shapes=CHANNELS,
    dtype=torch.half,
)
def before_relu_half() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why="into the conv, in bfloat16", dtype=torch.bfloat16)
def conv2d_bfloat16() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=1, why="input and GELU absorb nothing; what is left stays half", shapes=CHANNELS, dtype=torch.half
)
def alone_before_gelu_half() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why="into the conv, in float64", dtype=torch.double)
def conv2d_double() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why="forward into the conv, in float64", shapes=CHANNELS, dtype=torch.double)
def into_padded_conv2d_double() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why="a scale and a shift as Python numbers take the conv's dtype", dtype=torch.half)
def scalars_half() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu((m.conv(x) * 0.5 + 0.25) / m.std),
        conv=nn.Conv2d(3, 8, 3),
        std=per_channel(torch.rand(8) + 0.5),
    )
