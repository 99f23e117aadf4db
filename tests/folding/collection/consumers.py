"""A BatchNorm, then linear layers: forward into their weights.

The input, or GELU before the BatchNorm, closes the way back. A zero-padded consumer sees 0, and not
s·0 + t, beyond the border: a padding constant −t/s a channel or one constant map conv(t·1) makes it exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import random_affine
from tests.folding.collection.wiring import Wired, per_channel

FORWARD = "W·s[in] and b + ΣW·t are weights of the same layer"
BORDER = FORWARD + "; a padding constant or one constant map mends the border"
CHANNELS = ((8, 7, 7),)


@network(fewest=0, why=FORWARD, shapes=CHANNELS)
def into_conv2d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why=FORWARD + "; a group sees its own channels", shapes=CHANNELS)
def into_conv2d_grouped_no_bias() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, groups=2, bias=False), nn.GELU())


@network(fewest=0, why=FORWARD, shapes=CHANNELS)
def into_conv2d_depthwise_strided() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.GELU())


@network(fewest=0, why=FORWARD, shapes=((8, 10),))
def into_conv1d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), nn.Conv1d(8, 4, 3, dilation=2), nn.GELU())


@network(fewest=0, why=FORWARD, shapes=((8, 4, 5, 5),))
def into_conv3d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm3d(8), nn.Conv3d(8, 4, 2), nn.GELU())


@network(fewest=0, why=FORWARD, shapes=((8,),))
def into_linear() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4), nn.GELU())


@network(fewest=0, why=FORWARD + "; a matrix product without bias becomes one with", shapes=((8,),))
def into_matmul() -> nn.Module:
    return Wired(lambda m, x: F.gelu(m.bn(x) @ m.weight), bn=nn.BatchNorm1d(8), weight=torch.randn(8, 4))


@network(fewest=0, why=BORDER, shapes=CHANNELS)
def into_padded_conv2d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why=BORDER, shapes=((8, 8, 8),))
def into_padded_strided_conv2d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, stride=2, bias=False), nn.GELU())


@network(fewest=0, why=BORDER, shapes=CHANNELS)
def into_padded_depthwise_conv2d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.GELU())


@network(fewest=0, why=BORDER, shapes=CHANNELS)
def into_same_padded_dilated_conv2d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding="same", dilation=2), nn.GELU())


@network(
    fewest=0,
    why=FORWARD + "; a channel of ones, zero-padded with the rest, carries ΣW·t at every size",
    shapes=CHANNELS,
    free={0: "batch", 2: "height", 3: "width"},
)
def into_padded_conv2d_of_any_size() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why=BORDER, shapes=((8, 10),))
def into_padded_conv1d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), nn.Conv1d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why=BORDER, shapes=((8, 4, 5, 5),))
def into_padded_conv3d() -> nn.Module:
    return nn.Sequential(nn.BatchNorm3d(8), nn.Conv3d(8, 4, 3, padding=1), nn.GELU())


FROM_INSIDE = FORWARD + "; this padding copies values from inside, so the map is the same there"


@network(fewest=0, why=FROM_INSIDE, shapes=CHANNELS)
def into_reflect_padded_conv2d() -> nn.Module:
    conv = nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(nn.BatchNorm2d(8), conv, nn.GELU())


@network(fewest=0, why=FROM_INSIDE, shapes=CHANNELS)
def into_replicate_padded_conv2d() -> nn.Module:
    conv = nn.Conv2d(8, 4, 3, padding=1, padding_mode="replicate")
    return nn.Sequential(nn.BatchNorm2d(8), conv, nn.GELU())


@network(fewest=0, why=FROM_INSIDE, shapes=CHANNELS)
def into_circular_padded_conv2d() -> nn.Module:
    conv = nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular")
    return nn.Sequential(nn.BatchNorm2d(8), conv, nn.GELU())


@network(fewest=0, why=BORDER, shapes=CHANNELS)
def into_conv2d_through_zero_pad() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why=BORDER + "; here it pads with 0.5", shapes=CHANNELS)
def into_conv2d_through_constant_pad() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ConstantPad2d(1, 0.5), nn.Conv2d(8, 4, 3), nn.GELU())


TRANSPOSED = FORWARD + "; what a transposed conv makes of the constant t is one constant map"


@network(fewest=0, why=FORWARD + "; kernel = stride: every output sees one input", shapes=CHANNELS)
def into_conv_transpose2d_tiling() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.GELU())


@network(fewest=0, why=TRANSPOSED, shapes=CHANNELS)
def into_conv_transpose2d() -> nn.Module:
    conv = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(nn.BatchNorm2d(8), conv, nn.GELU())


@network(fewest=0, why=TRANSPOSED, shapes=((8, 6),))
def into_conv_transpose1d_grouped() -> nn.Module:
    conv = nn.ConvTranspose1d(8, 6, 3, groups=2, dilation=2)
    return nn.Sequential(nn.BatchNorm1d(8), conv, nn.GELU())


@network(fewest=0, why=FORWARD + ", expanded over the positions", shapes=((8, 3, 3),))
def into_linear_through_flatten() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 4), nn.GELU())


@network(fewest=0, why=FORWARD + "; the mean of s·z + t is s·mean + t", shapes=CHANNELS)
def into_linear_through_global_pool() -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.BatchNorm2d(8), pool, nn.Flatten(), nn.Linear(8, 4), nn.GELU())


@network(fewest=0, why=FORWARD + ", for each consumer", shapes=CHANNELS)
def into_two_convs() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.wide(y := m.bn(x))) + F.gelu(m.narrow(y)),
        bn=nn.BatchNorm2d(8),
        wide=nn.Conv2d(8, 4, 3, padding=1),
        narrow=nn.Conv2d(8, 4, 1),
    )


@network(fewest=0, why=FORWARD + ", for each of the three projections", shapes=((7, 8),))
def into_three_projections() -> nn.Module:
    return Wired(
        lambda m, x: F.scaled_dot_product_attention(
            m.query(y := m.bn(x.transpose(1, 2)).transpose(1, 2).unsqueeze(1)), m.key(y), m.value(y)
        ),
        bn=nn.BatchNorm1d(8),
        query=nn.Linear(8, 8),
        key=nn.Linear(8, 8),
        value=nn.Linear(8, 8),
    )


@network(
    fewest=1, why="the conv absorbs it, the output does not, and the input takes nothing", shapes=CHANNELS
)
def into_conv_and_output() -> nn.Module:
    return Wired(lambda m, x: (m.conv(y := m.bn(x)), y), bn=nn.BatchNorm2d(8), conv=nn.Conv2d(8, 4, 3))


@network(fewest=1, why="the conv absorbs it, GELU does not, and the input takes nothing", shapes=CHANNELS)
def into_conv_and_gelu() -> nn.Module:
    return Wired(
        lambda m, x: m.conv(y := m.bn(x)) + F.gelu(y),
        bn=nn.BatchNorm2d(8),
        conv=nn.Conv2d(8, 8, 1),
    )


@network(fewest=0, why=FORWARD + "; evaluating dropout is the identity", shapes=CHANNELS)
def into_conv_through_dropout() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.Dropout2d(0.3), nn.Identity(), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why=BORDER + "; GELU before it")
def between_gelu_and_padded_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(fewest=0, why=BORDER + ": two maps compose on the way", shapes=CHANNELS)
def two_maps_into_padded_conv() -> nn.Module:
    scale, shift = random_affine(8)
    return Wired(
        lambda m, x: F.gelu(m.conv(m.bn(x) * m.scale + m.shift)),
        scale=per_channel(scale),
        shift=per_channel(shift),
        bn=nn.BatchNorm2d(8),
        conv=nn.Conv2d(8, 4, 3, padding=1),
    )
