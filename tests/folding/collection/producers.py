"""A linear layer, then a BatchNorm: backward into the weights.

GELU closes the way forward, so only the producer can take the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.folding.collection.registry import network
from tests.folding.collection.wiring import Wired

INTO_WEIGHTS = "W·s[out] and (b − μ)·s + β are weights of the same layer"
SEQUENCE = ((7, 6),)  # [N, T, F]: 7 tokens of 6 features


@network(fewest=0, why=INTO_WEIGHTS)
def conv2d() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS + "; without a bias the shift becomes one")
def conv2d_no_bias_strided() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=0, why=INTO_WEIGHTS + "; the out axis of a grouped weight is the plain axis 0", shapes=((4, 9, 9),)
)
def conv2d_grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=0, why=INTO_WEIGHTS + "; depthwise with two outputs a channel is no exception", shapes=((4, 9, 9),)
)
def conv2d_depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS + "; padding and dilation do not touch the out axis")
def conv2d_same_dilated() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS + "; reflected padding is a pad before the same conv")
def conv2d_reflect_padded() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((3, 12),))
def conv1d_dilated() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 3, dilation=2), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((4, 12),))
def conv1d_grouped_no_bias() -> nn.Module:
    return nn.Sequential(nn.Conv1d(4, 8, 3, groups=2, stride=2, bias=False), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((3, 5, 6, 6),))
def conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((4, 5, 6, 6),))
def conv3d_grouped_no_bias() -> nn.Module:
    return nn.Sequential(nn.Conv3d(4, 8, 2, groups=4, bias=False), nn.BatchNorm3d(8), nn.GELU())


TRANSPOSED = INTO_WEIGHTS + "; the out axis of a transposed weight is axis 1, one block a group"


@network(fewest=0, why=TRANSPOSED, shapes=((3, 6),))
def conv_transpose1d() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose1d(3, 8, 3, stride=2), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=TRANSPOSED)
def conv_transpose2d() -> nn.Module:
    conv = nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=TRANSPOSED, shapes=((4, 5, 5),))
def conv_transpose2d_grouped_dilated() -> nn.Module:
    conv = nn.ConvTranspose2d(4, 8, 3, groups=2, dilation=2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=TRANSPOSED + "; a square weight hides the wrong axis", shapes=((8, 5, 5),))
def conv_transpose2d_square() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=TRANSPOSED, shapes=((4, 3, 4, 4),))
def conv_transpose3d_grouped_no_bias() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose3d(4, 8, 2, groups=2, bias=False), nn.BatchNorm3d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((5,),))
def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS, shapes=((8,),))
def linear_no_bias_square() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.GELU())


@network(
    fewest=0, why=INTO_WEIGHTS + "; transposing brings the features to BatchNorm1d's axis", shapes=SEQUENCE
)
def linear_over_features() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.linear(x).transpose(1, 2)).transpose(1, 2)),
        linear=nn.Linear(6, 8),
        bn=nn.BatchNorm1d(8),
    )


ACROSS_TOKENS = (
    "a scale a token: the Linear's weights are shared by all tokens, the input takes nothing, GELU blocks; "
    "one map: the BatchNorm itself"
)


@network(fewest=1, why=ACROSS_TOKENS, shapes=SEQUENCE)
def linear_over_tokens() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(7), nn.GELU())


@network(fewest=1, why=ACROSS_TOKENS + " (7 features by accident)", shapes=SEQUENCE)
def linear_over_tokens_sizes_match() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.GELU())


@network(
    fewest=1,
    why="a scale a column of the image: the conv's weights are shared by all columns; one map: the BatchNorm",
    shapes=((3, 6, 10),),
)
def conv2d_over_columns_sizes_match() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).permute(0, 3, 2, 1))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=INTO_WEIGHTS + "; here the Linear does mix the tokens", shapes=SEQUENCE)
def linear_mixing_tokens() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.mix(x.transpose(1, 2)).transpose(1, 2))),
        mix=nn.Linear(7, 8),
        bn=nn.BatchNorm1d(8),
    )


@network(
    fewest=0, why=INTO_WEIGHTS + "; over the tokens, which are the channel axis of Conv1d", shapes=SEQUENCE
)
def conv1d_mixing_tokens() -> nn.Module:
    return nn.Sequential(nn.Conv1d(7, 8, 1), nn.BatchNorm1d(8), nn.GELU())


@network(
    fewest=0,
    why="x·W is a Linear without a bias; as one with a bias it takes scale and shift",
    shapes=((5,),),
)
def matmul() -> nn.Module:
    return Wired(lambda m, x: F.gelu(m.bn(x @ m.weight)), weight=torch.randn(5, 8), bn=nn.BatchNorm1d(8))


@network(fewest=0, why=INTO_WEIGHTS + "; addmm holds bias and weight", shapes=((5,),))
def addmm() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(torch.addmm(m.bias, x, m.weight))),
        bias=torch.randn(8),
        weight=torch.randn(5, 8),
        bn=nn.BatchNorm1d(8),
    )


@network(fewest=0, why=INTO_WEIGHTS + "; the weight is a constant of the program, however it was computed")
def weight_norm() -> nn.Module:
    conv = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=INTO_WEIGHTS + "; σ is a constant in eval mode", shapes=((5,),))
def spectral_norm() -> nn.Module:
    linear = parametrizations.spectral_norm(nn.Linear(5, 8))
    return nn.Sequential(linear, nn.BatchNorm1d(8), nn.GELU())


def standardised(weight: Tensor) -> Tensor:
    """Each output channel's weights with mean 0 and deviation 1."""
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / centred.std((1, 2, 3), keepdim=True)


@network(fewest=0, why=INTO_WEIGHTS + "; standardising the weight is arithmetic on constants")
def weight_standardised() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(F.conv2d(x, standardised(m.weight)))),
        weight=torch.randn(8, 3, 3, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=INTO_WEIGHTS)
def functional_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(F.conv2d(x, m.weight, m.bias, padding=1))),
        weight=torch.randn(8, 3, 3, 3) / 5,
        bias=torch.randn(8),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=INTO_WEIGHTS + "; without dynamic sizes just as well", free={})
def conv2d_fixed_batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU())
