"""The building blocks of well-known networks, and sums of linear branches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import ALIVE, random_affine
from tests.folding.collection.wiring import Wired, WiredPair, per_channel

CHANNELS = ((8, 7, 7),)
EACH_ITS_OWN = "every BatchNorm stands behind a conv of its own"
CLAMPED = "BN → ReLU → conv is clamp → conv"
ONE_CONV = "linear branches of one input, summed, are one conv"
# A tensor may be kept in other units if its producer and all its consumers agree on them.
UNITS = "dividing by s, so every s must be ≠ 0"


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Conv → BN, padded to keep the size."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Conv → BN → ReLU."""
    return conv_bn(inputs, outputs, kernel, stride, groups).append(nn.ReLU(inplace=True))


def bn_relu_conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """BN → ReLU → conv: the order of pre-activation networks."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


def classifier(channels: int) -> nn.Sequential:
    """Global mean → Linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


class Residual(nn.Module):
    """branch(x) + shortcut(x), then an activation."""

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum, activated."""
        out: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return out


class Dense(nn.Module):
    """A dense block: every layer sees all before it."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(bn_relu_conv(inputs + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs + layers·growth, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class SqueezeExcite(nn.Module):
    """x · sigmoid(W₂ relu(W₁ mean(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 3, 1),
            nn.ReLU(),
            nn.Conv2d(3, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W]."""
        gated: Tensor = x * self.gate(x)
        return gated


class Branches(nn.Module):
    """Several branches of one input, concatenated along the channels or summed."""

    def __init__(self, *branches: nn.Module, summed: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.summed = summed

    def forward(self, x: Tensor) -> Tensor:
        """[N, ΣC, H, W], or [N, C, H, W] summed."""
        outputs = [branch(x) for branch in self.branches]
        return torch.stack(outputs).sum(0) if self.summed else torch.cat(outputs, 1)


class Sum(Branches):
    """The same, summed one after the other as most code does."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W]."""
        total: Tensor = self.branches[0](x)
        for branch in list(self.branches)[1:]:
            total = total + branch(x)
        return total


@network(fewest=0, why=EACH_ITS_OWN)
def resnet_basic() -> nn.Module:
    block = Residual(nn.Sequential(conv_bn_relu(8, 8), conv_bn(8, 8)), act=nn.ReLU())
    return nn.Sequential(conv_bn_relu(3, 8), block, classifier(8))


@network(fewest=0, why=EACH_ITS_OWN + "; the shortcut's too")
def resnet_bottleneck_downsampling() -> nn.Module:
    branch = nn.Sequential(conv_bn_relu(8, 4, 1), conv_bn_relu(4, 4, stride=2, groups=2), conv_bn(4, 12, 1))
    block = Residual(branch, conv_bn(8, 12, 1, stride=2), nn.ReLU())
    return nn.Sequential(conv_bn_relu(3, 8), nn.MaxPool2d(3, 2, 1), block, classifier(12))


@network(fewest=0, why=CLAMPED + "; the second BatchNorm stands behind a conv, the last goes into the Linear")
def preact_resnet() -> nn.Module:
    block = Residual(nn.Sequential(bn_relu_conv(8, 8), bn_relu_conv(8, 8)))
    return nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.BatchNorm2d(8), nn.ReLU(), classifier(8))


@network(fewest=0, why=CLAMPED + "; the skip takes the input as it is", shapes=CHANNELS)
def preact_block_of_input() -> nn.Module:
    return nn.Sequential(Residual(nn.Sequential(bn_relu_conv(8, 6), bn_relu_conv(6, 8))), nn.GELU())


@network(fewest=0, why=CLAMPED + ", for both convs that follow the ReLU", shapes=CHANNELS)
def preact_block_with_projection() -> nn.Module:
    branch = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), bn_relu_conv(6, 6))
    block = Residual(branch, nn.Conv2d(8, 6, 1))
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), block, nn.GELU())


@network(
    fewest=1,
    why="relu(BN(x)) is the skip too, and GELU of the conv beside it takes no scale: the map is left",
    shapes=CHANNELS,
)
def preact_block_with_activated_skip() -> nn.Module:
    branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU())
    return nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), Residual(branch), nn.Conv2d(8, 4, 1))


@network(fewest=0, why=CLAMPED + ", on every concat; a transition's mean commutes")
def dense_block() -> nn.Module:
    transition = nn.Sequential(bn_relu_conv(14, 8, 1), nn.AvgPool2d(2))
    tail = nn.Sequential(nn.BatchNorm2d(14), nn.ReLU(), classifier(14))
    return nn.Sequential(nn.Conv2d(3, 8, 3), Dense(8, 3, 2), transition, Dense(8, 3, 2), tail)


@network(
    fewest=0, why=CLAMPED + ": the clamps are of the raw input and of the convs' outputs", shapes=CHANNELS
)
def dense_block_of_input() -> nn.Module:
    return nn.Sequential(Dense(8, 4, 3), nn.GELU())


@network(fewest=0, why=EACH_ITS_OWN)
def inverted_residual() -> nn.Module:
    def expand(inputs: int, outputs: int) -> nn.Module:
        depthwise = nn.Sequential(conv_bn(12, 12, groups=12), nn.ReLU6())
        return nn.Sequential(conv_bn(inputs, 12, 1), nn.ReLU6(), depthwise, conv_bn(12, outputs, 1))

    return nn.Sequential(
        conv_bn_relu(3, 6), Residual(expand(6, 6)), expand(6, 8), nn.Hardswish(), classifier(8)
    )


@network(fewest=0, why=EACH_ITS_OWN)
def squeeze_excite_residual() -> nn.Module:
    branch = nn.Sequential(conv_bn_relu(8, 8), conv_bn(8, 8), SqueezeExcite(8))
    return nn.Sequential(conv_bn_relu(3, 8), Residual(branch, act=nn.ReLU()), classifier(8))


@network(fewest=0, why="forward over the product into the conv")
def squeeze_excite_then_map_and_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), SqueezeExcite(8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.GELU()
    )


@network(
    fewest=1, why="the gate changes with the input, so no shift passes the product; what is left is one map"
)
def squeeze_excite_then_map_and_gelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), SqueezeExcite(8), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=EACH_ITS_OWN + "; the last one goes through all clamps of the concat")
def inception() -> nn.Module:
    pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn_relu(6, 2, 1))
    double = nn.Sequential(conv_bn_relu(6, 3, 1), conv_bn_relu(3, 4), conv_bn_relu(4, 3))
    branches = Branches(conv_bn_relu(6, 3, 1), conv_bn_relu(6, 2, 5), double, pool)
    return nn.Sequential(conv_bn_relu(3, 6), branches, nn.BatchNorm2d(10), nn.GELU())


@network(fewest=0, why=ONE_CONV + "; the identity with a BatchNorm is a 3×3 conv too", shapes=CHANNELS)
def repvgg_of_input() -> nn.Module:
    return nn.Sequential(Sum(conv_bn(8, 8), conv_bn(8, 8, 1), nn.BatchNorm2d(8)), nn.ReLU(), nn.Tanh())


@network(fewest=0, why=ONE_CONV + "; in two stages, the second grouped")
def repvgg() -> nn.Module:
    first = Sum(conv_bn(3, 8, stride=2), conv_bn(3, 8, 1, stride=2))
    second = Sum(conv_bn(8, 8, groups=2), conv_bn(8, 8, 1, groups=2), nn.BatchNorm2d(8))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), classifier(8))


@network(fewest=0, why=EACH_ITS_OWN + "; the sum of a stack is a sum of branches", shapes=CHANNELS)
def stacked_branches() -> nn.Module:
    return nn.Sequential(Branches(conv_bn(8, 8), conv_bn(8, 8, 1), summed=True), nn.GELU())


@network(fewest=0, why=EACH_ITS_OWN)
def asymmetric_convs() -> nn.Module:
    row = nn.Sequential(nn.Conv2d(3, 8, (1, 3), padding=(0, 1)), nn.BatchNorm2d(8))
    column = nn.Sequential(nn.Conv2d(3, 8, (3, 1), padding=(1, 0)), nn.BatchNorm2d(8))
    return nn.Sequential(Sum(conv_bn(3, 8), row, column), nn.GELU())


@network(fewest=0, why=ONE_CONV + ": x + conv(x) takes s and t", shapes=CHANNELS)
def input_plus_conv() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(Residual(conv), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=ONE_CONV + ": x + linear(x) takes s and t", shapes=((8,),))
def input_plus_linear() -> nn.Module:
    return nn.Sequential(Residual(nn.Linear(8, 8)), nn.BatchNorm1d(8), nn.GELU())


@network(
    fewest=0, why=ONE_CONV + ": y + conv(y) with y = BN(x) takes s and t on its input side", shapes=CHANNELS
)
def map_before_input_plus_conv() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    return nn.Sequential(nn.BatchNorm2d(8), Residual(conv), nn.GELU())


@network(fewest=0, why="BN(z) + z is (s + 1)·z + t: into the conv")
def map_plus_identity() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), Residual(nn.BatchNorm2d(8)), nn.GELU())


@network(fewest=1, why="BN(x) + x is one map; input and GELU absorb nothing", shapes=CHANNELS)
def map_plus_identity_of_input() -> nn.Module:
    return nn.Sequential(Residual(nn.BatchNorm2d(8)), nn.GELU())


@network(fewest=0, why="BN(z) + frozen(z) is one map of z: into the conv")
def two_maps_of_one_conv_summed() -> nn.Module:
    scale, shift = random_affine(8)
    return Wired(
        lambda m, x: F.gelu(m.bn(z := m.conv(x)) + (z * m.scale + m.shift)),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        scale=per_channel(scale),
        shift=per_channel(shift),
    )


@network(fewest=0, why="both branches take the scale, one the shift", shapes=((3, 9, 9), (5, 9, 9)))
def sum_of_convs() -> nn.Module:
    return WiredPair(
        lambda m, x, y: F.gelu(m.bn(m.first(x) - m.second(y))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(5, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="both clamps take the scale, one the shift; s < 0 turns both over")
def sum_of_relus() -> nn.Module:
    branches = Sum(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6())
    )
    return nn.Sequential(branches, nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=1, why="the conv's clamp takes the scale, the input does not; its map is one", shapes=CHANNELS
)
def relu_branch_plus_input() -> nn.Module:
    branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(Residual(branch), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=0,
    why="the stem gives s·x, the branch's conv undoes it in its weights, the clamp takes s and t; " + UNITS,
    signs=ALIVE,
)
def relu_branch_plus_stem() -> nn.Module:
    branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 8, 3), Residual(branch), nn.BatchNorm2d(8), nn.GELU())


@network(
    fewest=0,
    why="the conv of y gives conv(y)/s, the conv after the sum takes s and t; " + UNITS,
    shapes=((8, 7, 7), (8, 7, 7)),
    signs=ALIVE,
)
def relu_added_to_conv() -> nn.Module:
    return WiredPair(
        lambda m, x, y: F.gelu(m.next(F.relu(m.bn(x)) + m.conv(y))),
        bn=nn.BatchNorm2d(8),
        conv=nn.Conv2d(8, 8, 1),
        next=nn.Conv2d(8, 4, 3, padding=1),
    )


@network(fewest=0, why="the scale goes into one factor, the shift over the product into the conv")
def product_of_convs_before_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(m.first(x) * m.second(x)))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 1),
    )


@network(fewest=1, why="no shift passes a product of two inputs' images; what is left is one map")
def gated_linear_unit() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.GLU(1), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why=EACH_ITS_OWN + "; the untouched half passes by")
def shufflenet_unit() -> nn.Module:
    branch = nn.Sequential(conv_bn_relu(4, 4, 1), conv_bn(4, 4, groups=4), conv_bn_relu(4, 4, 1))
    return Wired(
        lambda m, x: m.head(m.shuffle(torch.cat([(h := m.stem(x).chunk(2, 1))[0], m.branch(h[1])], 1))),
        stem=conv_bn_relu(3, 8),
        branch=branch,
        shuffle=nn.ChannelShuffle(2),
        head=classifier(8),
    )


@network(fewest=0, why=EACH_ITS_OWN)
def ghost_module() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(torch.cat([y := m.primary(x), m.cheap(y)], 1)),
        primary=conv_bn_relu(3, 4, 1),
        cheap=conv_bn_relu(4, 4, groups=4),
    )


@network(fewest=0, why=CLAMPED + ", on the concat of skip and upsampled image", shapes=((3, 8, 8),))
def unet() -> nn.Module:
    return Wired(
        lambda m, x: m.head(F.relu(m.bn(torch.cat([y := m.down(x), m.up(m.deep(F.max_pool2d(y, 2)))], 1)))),
        down=nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
        deep=conv_bn_relu(6, 8),
        up=nn.ConvTranspose2d(8, 4, 2, stride=2),
        bn=nn.BatchNorm2d(10),
        head=nn.Conv2d(10, 2, 3, padding=1),
    )


@network(fewest=0, why=EACH_ITS_OWN + "; a sum over the layer below changes nothing of that")
def res2net() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(torch.cat([(p := m.stem(x).chunk(3, 1))[0], y := m.a(p[1]), m.b(p[2] + y)], 1)),
        stem=conv_bn_relu(3, 12),
        a=conv_bn_relu(4, 4),
        b=conv_bn_relu(4, 4),
    )


@network(
    fewest=0,
    why="forward into the three projections; the other forward into the first Linear",
    shapes=((6, 8),),
)
def batch_norm_transformer() -> nn.Module:
    def features(m: nn.Module, x: Tensor) -> Tensor:
        normalised: Tensor = m(x.transpose(1, 2))
        return normalised.transpose(1, 2)

    def forward(m: Wired, x: Tensor) -> Tensor:
        y = features(m.get_submodule("first"), x).unsqueeze(1)  # one head
        q, k, v = (m.get_submodule(name)(y) for name in ("query", "key", "value"))
        x = x + F.scaled_dot_product_attention(q, k, v).squeeze(1)
        hidden: Tensor = m.get_submodule("mlp")(features(m.get_submodule("second"), x))
        return x + hidden

    return Wired(
        forward,
        first=nn.BatchNorm1d(8),
        query=nn.Linear(8, 8),
        key=nn.Linear(8, 8),
        value=nn.Linear(8, 8),
        second=nn.BatchNorm1d(8),
        mlp=nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)),
    )


@network(fewest=0, why="LayerNorm stays; the layer scale goes into the second Linear", shapes=CHANNELS)
def convnext_block() -> nn.Module:
    mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    return Wired(
        lambda m, x: x + (m.mlp(m.depthwise(x).permute(0, 2, 3, 1)) * m.gamma).permute(0, 3, 1, 2),
        depthwise=nn.Conv2d(8, 8, 5, padding=2, groups=8),
        mlp=mlp,
        gamma=random_affine(8)[0],
    )


@network(fewest=0, why=EACH_ITS_OWN, shapes=((3, 8, 8),))
def autoencoder() -> nn.Module:
    down = nn.Sequential(conv_bn_relu(3, 6, stride=2), conv_bn_relu(6, 8, stride=2))
    up = nn.Sequential(
        nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 2, 2)
    )
    return nn.Sequential(nn.BatchNorm2d(3), down, up, nn.Sigmoid())


@network(fewest=0, why=EACH_ITS_OWN, shapes=((6,),))
def perceptron() -> nn.Module:
    first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    second = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8))
    return nn.Sequential(nn.BatchNorm1d(6), first, second, nn.Linear(8, 4))
