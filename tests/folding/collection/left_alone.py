"""Normalisations that depend on the data: left alone, while the BatchNorms beside them fold."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.wiring import Wired

NOTHING_TO_FOLD = "no constant affine map in it: it stays as it is"
CHANNELS = ((8, 6, 6),)


@network(fewest=0, why=NOTHING_TO_FOLD)
def group_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.GELU())


@network(fewest=0, why=NOTHING_TO_FOLD, shapes=((5, 6),))
def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU())


@network(fewest=0, why=NOTHING_TO_FOLD + "; its statistics are the instance's own")
def untracked_instance_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.GELU())


@network(fewest=1, why="its own α·mean(x²) + k stands between a square and a power, which let nothing pass")
def local_response_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.Conv2d(8, 4, 1))


@network(fewest=0, why="backward into the conv; the GroupNorm after it stays")
def before_group_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.GELU())


@network(fewest=0, why="forward into the conv; the GroupNorm before it stays")
def between_group_norm_and_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(
    fewest=1,
    why="the input takes nothing and the data-dependent GroupNorm lets nothing pass",
    shapes=CHANNELS,
)
def between_input_and_group_norm() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.GroupNorm(4, 8), nn.GELU())


@network(fewest=0, why="the BatchNorm goes into the first conv; the scale by the data's own deviation stays")
def divided_by_own_deviation() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu((y := m.bn(m.conv(x))) / y.square().mean((1, 2, 3), keepdim=True).sqrt()),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="a softmax over the image is no affine map; the BatchNorm goes into the conv")
def spatial_attention() -> nn.Module:
    return Wired(
        lambda m, x: (y := m.bn(m.conv(x))).flatten(2).softmax(2) * y.flatten(2),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )
