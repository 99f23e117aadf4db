"""Activations before and after a BatchNorm.

::

    clip(z, l, h) ▶ s·v + t     =  clip(s·z + t, L, H)              backward: a clamp a channel
    s·z + t ▶ clip(·, l, h)     =  s·clip(z, L', H') + t            forward: a clamp a channel
    leaky(z) ▶ s·v + t          =  prelu(k·z) + t                   the scale passes, the shift does not

ReLU, ReLU6, Hardtanh and Hardsigmoid are clips. GELU, SiLU, sigmoid, tanh, ELU let nothing pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import NEGATIVE, ZERO, random_affine, random_scale
from tests.folding.collection.wiring import Wired, WiredPair, per_channel

CLAMP = "clip then s·v + t is a clamp a channel of s·z + t, which goes into the conv"
FORWARD_CLAMP = "s·z + t then clip is s·clamp(z) + t, which goes into the next layer"
CHANNELS = ((8, 7, 7),)


def after(activation: nn.Module) -> nn.Module:
    """Conv → activation → BN → GELU."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.BatchNorm2d(8), nn.GELU())


def before(activation: nn.Module) -> nn.Module:
    """BN → activation → zero-padded conv → GELU."""
    return nn.Sequential(nn.BatchNorm2d(8), activation, nn.Conv2d(8, 4, 3, padding=1), nn.GELU())


@network(fewest=0, why=CLAMP)
def after_relu() -> nn.Module:
    return after(nn.ReLU())


@network(fewest=0, why=CLAMP)
def after_relu_in_place() -> nn.Module:
    return after(nn.ReLU(inplace=True))


@network(fewest=0, why=CLAMP + "; s < 0 turns the clip over", signs=NEGATIVE)
def after_relu_all_negative() -> nn.Module:
    return after(nn.ReLU())


@network(fewest=0, why="s = 0 everywhere: constants, into the next conv's bias", signs=ZERO)
def after_relu_all_zero() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(F.relu(m.conv(x))))) + m.skip(x),
        conv=nn.Conv2d(3, 8, 1),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 3, padding=1),
        skip=nn.Conv2d(3, 4, 1),
    )


@network(fewest=0, why=CLAMP)
def after_relu6() -> nn.Module:
    return after(nn.ReLU6())


@network(fewest=0, why=CLAMP)
def after_hardtanh() -> nn.Module:
    return after(nn.Hardtanh(-0.5, 0.7))


@network(fewest=0, why=CLAMP + "; Hardsigmoid is clip(z/6 + 1/2, 0, 1), and z/6 + 1/2 goes there too")
def after_hardsigmoid() -> nn.Module:
    return after(nn.Hardsigmoid())


@network(fewest=0, why=CLAMP + "; one open end")
def after_clamp_max() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).clamp(max=0.4))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=CLAMP + "; clips of clips are clips")
def after_two_clips() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(x).clamp_min(-0.3).clamp(-1, 0.5))),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=CLAMP, shapes=((5,),))
def after_relu_of_linear() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Sigmoid())


@network(fewest=0, why=CLAMP + "; the padding of this conv is inside it")
def after_relu_of_transposed_conv() -> nn.Module:
    conv = nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=CLAMP + "; twice: the clamp's ends go through the second map as well")
def after_relu_twice() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU6(), nn.BatchNorm2d(8), nn.GELU()
    )


@network(fewest=0, why=CLAMP + "; dropout is the identity")
def after_relu_and_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm2d(8), nn.Dropout2d(0.2), nn.Tanh()
    )


@network(fewest=0, why=CLAMP + ": two maps around one ReLU")
def around_relu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=CLAMP + "; an output is wanted as it is, and the clamp gives just that")
def after_relu_is_the_output() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8))


@network(fewest=0, why=FORWARD_CLAMP, shapes=CHANNELS)
def before_relu() -> nn.Module:
    return before(nn.ReLU())


@network(fewest=0, why=FORWARD_CLAMP, shapes=CHANNELS)
def before_relu6() -> nn.Module:
    return before(nn.ReLU6())


@network(fewest=0, why=FORWARD_CLAMP, shapes=CHANNELS)
def before_hardtanh() -> nn.Module:
    return before(nn.Hardtanh(-0.5, 0.7))


@network(fewest=0, why=FORWARD_CLAMP + ", with the 1/6 and the 1/2 of Hardsigmoid", shapes=CHANNELS)
def before_hardsigmoid() -> nn.Module:
    return before(nn.Hardsigmoid())


@network(fewest=0, why=FORWARD_CLAMP, shapes=((8, 3, 3),))
def before_relu_and_flattened_linear() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4), nn.GELU())


@network(fewest=0, why=FORWARD_CLAMP + ", through the mean", shapes=CHANNELS)
def before_relu_and_global_pool() -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 4), nn.GELU())


@network(fewest=0, why=FORWARD_CLAMP + ": sigmoid is before it, so only forward")
def between_sigmoid_relu_and_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.GELU()
    )


@network(fewest=0, why=FORWARD_CLAMP + "; with two maps and two clips in a row", shapes=CHANNELS)
def two_maps_and_clips_before_conv() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(8), nn.ReLU6(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(
    fewest=1, why="the input takes nothing; s·clamp(z) + t is an output: the map is left", shapes=CHANNELS
)
def between_input_and_relu_output() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())


@network(
    fewest=1,
    why="s·clamp(z) + t plus GELU(y): the conv after the sum scales both alike, GELU(y) takes no 1/s",
    shapes=((8, 7, 7), (8, 7, 7)),
)
def relu_added_to_gelu() -> nn.Module:
    return WiredPair(
        lambda m, x, y: m.conv(F.relu(m.bn(x)) + F.gelu(y)), bn=nn.BatchNorm2d(8), conv=nn.Conv2d(8, 4, 3)
    )


BLOCKED = "nothing passes on either side; the map itself is one"


@network(fewest=1, why=BLOCKED)
def between_gelus() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 4, 3), nn.GELU()
    )


@network(fewest=1, why=BLOCKED + "; the ReLU's clamp moves it to the output, not away")
def between_silu_and_relu_output() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.BatchNorm2d(8), nn.ReLU())


@network(fewest=1, why=BLOCKED)
def between_hardswish_and_sigmoid() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.BatchNorm2d(8), nn.Sigmoid())


@network(fewest=1, why=BLOCKED)
def between_elu_and_mish() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ELU(), nn.BatchNorm2d(8), nn.Mish())


@network(fewest=0, why="tanh closes the way back; forward into the Linear", shapes=((5,),))
def between_tanh_and_linear() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 4), nn.GELU())


@network(
    fewest=1,
    why="a sum's branches must both take the scale and softplus takes none; the map itself is one",
)
def conv_plus_softplus() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.first(x) + F.softplus(m.second(x)))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


SHIFT_STAYS = "the scale goes back as a PReLU, the shift does not pass its knee at 0; what is left is one map"


@network(fewest=0, why="forward into the conv; the LeakyReLU stays what it is")
def between_leaky_relu_and_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(fewest=1, why=SHIFT_STAYS)
def after_leaky_relu() -> nn.Module:
    return after(nn.LeakyReLU(0.1))


@network(fewest=1, why=SHIFT_STAYS)
def between_leaky_relus() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.Conv2d(8, 4, 3), nn.GELU()
    )


@network(fewest=0, why="the scale goes back as a PReLU into one conv, the shift over the sum into the other")
def leaky_relu_beside_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(F.leaky_relu(m.first(x), 0.2)) + m.second(x)),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="the scale goes back as a PReLU, the shift forward, over the sum, into the next conv")
def leaky_relu_beside_leaky_relu() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(F.leaky_relu(m.first(x), 0.2)) + F.leaky_relu(m.second(x), 0.3))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 1),
    )


@network(fewest=0, why="a scale without shift goes back as a PReLU of k·z; k goes into the conv")
def leaky_relu_then_scale() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(F.leaky_relu(m.conv(x), 0.2) * m.scale),
        conv=nn.Conv2d(3, 8, 3),
        scale=per_channel(random_affine(8)[0]),
    )


@network(fewest=0, why="leaky(s·x) is k·prelu(x); k goes into the next conv", shapes=CHANNELS)
def scale_then_leaky_relu() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.conv(F.leaky_relu(x * m.scale, 0.2))),
        conv=nn.Conv2d(8, 4, 3, padding=1),
        scale=per_channel(random_affine(8)[0]),
    )


@network(
    fewest=1, why="the shift moves the knee, and the input takes no shift; the map is left", shapes=CHANNELS
)
def between_input_and_leaky_relu() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 4, 3), nn.GELU())


@network(fewest=0, why="forward into the conv")
def between_prelu_and_padded_conv() -> nn.Module:
    prelu = nn.PReLU(8)
    with torch.no_grad():
        prelu.weight.copy_(torch.linspace(-0.5, 1.5, 8))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), prelu, nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(fewest=0, why="prelu then s·v is prelu(k·z), with 1/α for s < 0; the shift goes into the other conv")
def prelu_beside_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.prelu(m.first(x))) + m.second(x)),
        first=nn.Conv2d(3, 8, 3),
        prelu=nn.PReLU(8, init=0.3),
        second=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=1, why=SHIFT_STAYS)
def after_prelu() -> nn.Module:
    return after(nn.PReLU())


def shifts(channels: int, sign: int) -> tuple[Tensor, Tensor]:
    """A scale of either sign and a shift of one: [1, channels, 1, 1] each."""
    scale = random_scale(channels, ("positive", "negative"))
    return per_channel(scale), per_channel(sign * (0.1 + torch.rand(channels)))


@network(
    fewest=0,
    why="relu(s·leaky(z) + t) with t < 0 is relu(k·z + t), k = s or α·s: one side of the knee is cut off",
)
def leaky_relu_and_negative_shift_before_relu() -> nn.Module:
    scale, shift = shifts(8, -1)
    return Wired(
        lambda m, x: F.gelu(F.relu(F.leaky_relu(m.conv(x), 0.2) * m.scale + m.shift)),
        conv=nn.Conv2d(3, 8, 3),
        scale=scale,
        shift=shift,
    )


@network(
    fewest=1,
    why="relu(s·leaky(z) + t) with t > 0 keeps the knee at height t, not at 0 as a PReLU: the shift is left",
)
def leaky_relu_and_positive_shift_before_relu() -> nn.Module:
    scale, shift = shifts(8, 1)
    return Wired(
        lambda m, x: F.gelu(F.relu(F.leaky_relu(m.conv(x), 0.2) * m.scale + m.shift)),
        conv=nn.Conv2d(3, 8, 3),
        scale=scale,
        shift=shift,
    )


@network(
    fewest=1,
    why="relu(z) and relu(−z) want different scales of one z; a second conv for it would be a layer twice; "
    "the map itself is one",
)
def crelu() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(torch.cat([F.relu(z := m.conv(x)), F.relu(-z)], 1))),
        conv=nn.Conv2d(3, 4, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="both halves go forward into the conv")
def crelu_before_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(torch.cat([F.relu(z := m.conv(x)), F.relu(-z)], 1)))),
        conv=nn.Conv2d(3, 4, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 3, padding=1),
    )
