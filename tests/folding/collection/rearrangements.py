"""Operators that move values about: a per-channel map moves with them as long as channels stay whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import random_affine
from tests.folding.collection.wiring import Wired, WiredPair

CHANNELS = ((8, 6, 6),)
SLICED = "each part takes its slice of s and t"
MOVED = "values move, channels stay whole: s and t move with them into the conv"


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """[N, groups·c, H, W] with its channels interleaved, as ShuffleNet spells it."""
    n, channels, height, width = x.shape
    return (
        x.view(n, groups, channels // groups, height, width)
        .transpose(1, 2)
        .reshape(n, channels, height, width)
    )


def moved(rearrangement: nn.Module, channels: int = 8) -> nn.Module:
    """Conv → rearrangement → BN → GELU."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), rearrangement, nn.BatchNorm2d(channels), nn.GELU())


@network(fewest=0, why=SLICED)
def concat_of_convs() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(torch.cat([m.a(x), F.relu(m.b(x))], 1))),
        a=nn.Conv2d(3, 3, 3),
        b=nn.Conv2d(3, 5, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=1, why="the conv takes its slice, the input does not, GELU blocks; its slice is one map")
def concat_with_input() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(torch.cat([m.conv(x), x], 1))),
        conv=nn.Conv2d(3, 5, 3, padding=1),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="forward through the clamp into the conv, for all of its channels")
def concat_with_input_before_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(F.relu(m.bn(torch.cat([m.conv(x), x], 1))))),
        conv=nn.Conv2d(3, 5, 3, padding=1),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 3, padding=1),
    )


@network(fewest=0, why=SLICED + " of one conv's input", shapes=((4, 6, 6), (4, 6, 6)))
def two_maps_into_one_concat() -> nn.Module:
    return WiredPair(
        lambda m, x, y: F.gelu(m.conv(torch.cat([m.first(x), F.gelu(y), m.second(y)], 1))),
        first=nn.BatchNorm2d(4),
        second=nn.BatchNorm2d(4),
        conv=nn.Conv2d(12, 4, 3, padding=1),
    )


@network(fewest=0, why=SLICED + "; stacking is a concat along a new axis")
def stack_of_convs() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(torch.stack([m.a(x), m.b(x)], 2).flatten(1, 2))),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(3, 4, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=MOVED)
def shuffled_channels() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(channel_shuffle(m.conv(x), 2))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=MOVED)
def channel_shuffle_module() -> nn.Module:
    return moved(nn.ChannelShuffle(4))


@network(fewest=0, why=MOVED + "; an index permutes s and t")
def indexed_channels() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x)[:, m.order])),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        order=torch.tensor([3, 1, 7, 0, 5, 2, 6, 4]),
    )


@network(fewest=0, why="four channels become one: the same s and t for each of the four")
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.PixelShuffle(2), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=1, why="a scale that changes from pixel to pixel: no 3×3 conv takes it", shapes=((16, 4, 4),))
def pixel_shuffle_after_map() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(16), nn.PixelShuffle(2), nn.Conv2d(4, 4, 3), nn.GELU())


@network(
    fewest=0, why="a pixel becomes a channel: s and t are repeated, and go into the conv", shapes=((2, 8, 8),)
)
def pixel_unshuffle_after_map() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(2), nn.PixelUnshuffle(2), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=1, why="a scale that changes from pixel to pixel of the conv's image: it takes none")
def pixel_unshuffle_before_map() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 2), nn.PixelUnshuffle(2), nn.BatchNorm2d(8), nn.GELU())


INTERPOLATED = "interpolation weights sum to 1: it commutes with s·z + t"


@network(fewest=0, why=INTERPOLATED)
def upsample_nearest() -> nn.Module:
    return moved(nn.Upsample(scale_factor=2))


@network(fewest=0, why=INTERPOLATED)
def upsample_bilinear() -> nn.Module:
    return moved(nn.Upsample(scale_factor=2, mode="bilinear"))


@network(fewest=0, why=INTERPOLATED + "; forward into the conv", shapes=CHANNELS)
def upsample_bicubic_before_conv() -> nn.Module:
    upsample = nn.Upsample(size=(9, 9), mode="bicubic", align_corners=True)
    return nn.Sequential(nn.BatchNorm2d(8), upsample, nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why="s·z + t of a zero border is t: the border is padded with t a channel")
def zero_pad() -> nn.Module:
    return moved(nn.ZeroPad2d(1))


@network(fewest=0, why=MOVED + "; the border copies values from inside")
def reflection_pad() -> nn.Module:
    return moved(nn.ReflectionPad2d(1))


@network(fewest=0, why=MOVED + "; the border copies values from inside")
def circular_pad() -> nn.Module:
    return moved(nn.CircularPad2d(1))


@network(fewest=0, why=MOVED)
def crop_and_flip() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x)[:, :, 1:-1, 2:].flip(3))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="a map of its own for every flattened position: the Linear takes any")
def flatten_before_map_and_linear() -> nn.Module:
    conv = nn.Conv2d(3, 4, 7)
    return nn.Sequential(conv, nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 4), nn.GELU())


@network(
    fewest=1, why="a scale of its own for every position: the conv's weights are shared by all positions"
)
def flatten_before_map_and_gelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten(), nn.BatchNorm1d(36), nn.GELU())


@network(fewest=0, why="there is one position, so flattened features are channels")
def flatten_of_one_position() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 9), nn.Flatten(), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=MOVED + ": a patch embedding")
def patches_to_tokens() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.patch(x).flatten(2)).transpose(1, 2)),
        patch=nn.Conv2d(3, 8, 3, stride=3),
        bn=nn.BatchNorm1d(8),
    )


@network(fewest=0, why=MOVED + "; channels last, an affine map broadcasts over the last axis")
def channels_last() -> nn.Module:
    scale, shift = random_affine(8)
    return Wired(
        lambda m, x: F.gelu((m.conv(x).permute(0, 2, 3, 1) * m.scale + m.shift).permute(0, 3, 1, 2)),
        conv=nn.Conv2d(3, 8, 3),
        scale=scale,
        shift=shift,
    )


@network(fewest=0, why="half of the conv's channels take s and t, the other half 1 and 0")
def chunked() -> nn.Module:
    return Wired(
        lambda m, x: torch.cat([F.gelu(m.bn((halves := m.conv(x).chunk(2, 1))[0])), halves[1]], 1),
        conv=nn.Conv2d(3, 12, 3),
        bn=nn.BatchNorm2d(6),
    )


@network(fewest=0, why=SLICED + ", put together before the split")
def split_in_three() -> nn.Module:
    return Wired(
        lambda m, x: torch.cat(
            [
                F.gelu(m.first((parts := m.conv(x).split([2, 6, 3], 1))[0])),
                F.relu(m.second(parts[1])),
                m.third(parts[2]),
            ],
            1,
        ),
        conv=nn.Conv2d(3, 11, 3),
        first=nn.BatchNorm2d(2),
        second=nn.BatchNorm2d(6),
        third=nn.BatchNorm2d(3),
    )


@network(fewest=0, why="the slice takes s and t, the conv's other channels 1 and 0")
def sliced_channels() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn((z := m.conv(x))[:, 2:])).sum(1) + z[:, 0],
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(6),
    )


@network(fewest=0, why=MOVED + "; an axis of size 1 comes and goes")
def unsqueezed() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).unsqueeze(2)).squeeze(2)),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm3d(8),
    )


@network(fewest=1, why="two copies of each channel want two scales; a wider conv would compute them twice")
def tiled_channels() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).repeat(1, 2, 1, 1))),
        conv=nn.Conv2d(3, 4, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(
    fewest=0, why="frames are instances to the conv: its channels are BatchNorm3d's", shapes=((4, 3, 6, 6),)
)
def frames_as_instances() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x.flatten(0, 1)).unflatten(0, (-1, 4)).transpose(1, 2))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm3d(8),
    )


@network(fewest=0, why=MOVED + "; identity, dropout, contiguous and clone change nothing")
def identities() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.dropout(m.identity(m.conv(x))).contiguous().clone())),
        conv=nn.Conv2d(3, 8, 3),
        identity=nn.Identity(),
        dropout=nn.Dropout(0.4),
        bn=nn.BatchNorm2d(8),
    )
