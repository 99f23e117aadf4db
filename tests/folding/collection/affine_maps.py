"""Every spelling of a per-channel affine map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.registry import IMAGE, network
from tests.folding.collection.statistics import ALIVE, TINY, ZERO, random_affine
from tests.folding.collection.wiring import Wired, per_channel

BACKWARD = "an affine map with constants, whatever its spelling: into the conv"


class BatchNormWithReLU(nn.BatchNorm2d):
    """A subclass with an activation of its own, as several libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        """max(BN(x), 0)."""
        return F.relu(super().forward(x))


class FrozenBatchNorm(nn.Module):
    """Detection libraries' BatchNorm: buffers, a multiplication and an addition."""

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        scale, shift = random_affine(channels)
        self.epsilon = epsilon
        self.register_buffer("weight", scale)
        self.register_buffer("bias", shift)
        self.register_buffer("running_mean", torch.randn(channels) / 2)
        self.register_buffer("running_var", torch.empty(channels).uniform_(0.5, 2.0))

    def forward(self, x: Tensor) -> Tensor:
        """x·s + t, with s and t computed from the buffers at each call."""
        scale = self.get_buffer("weight") * (self.get_buffer("running_var") + self.epsilon).rsqrt()
        shift = self.get_buffer("bias") - self.get_buffer("running_mean") * scale
        return x * per_channel(scale) + per_channel(shift)


@network(fewest=0, why=BACKWARD)
def sync_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8), nn.GELU())


@network(fewest=0, why=BACKWARD + "; the ReLU stays behind it")
def subclass_with_activation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormWithReLU(8), nn.GELU())


@network(fewest=0, why=BACKWARD)
def functional_batch_norm() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(F.batch_norm(m.conv(x), m.mean, m.var, m.weight, m.bias, eps=1e-3)),
        conv=nn.Conv2d(3, 8, 3),
        mean=torch.randn(8),
        var=torch.rand(8),
        weight=random_affine(8)[0],
        bias=torch.randn(8),
    )


@network(fewest=0, why=BACKWARD + "; with tracked statistics, instances do not matter")
def tracked_instance_norm() -> nn.Module:
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.GELU())


@network(fewest=0, why=BACKWARD + "; tracked, γ = 1, β = 0", shapes=((3, 12),))
def tracked_instance_norm1d_plain() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.InstanceNorm1d(8, track_running_stats=True), nn.GELU())


@network(fewest=0, why=BACKWARD)
def frozen_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), FrozenBatchNorm(8), nn.GELU())


@network(fewest=0, why=BACKWARD + "; γ = 1, β = 0")
def no_affine_parameters() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.GELU())


@network(fewest=0, why=BACKWARD + "; ε = 0.1 weighs as much as the variance")
def large_epsilon() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=0.1), nn.GELU())


@network(fewest=0, why=BACKWARD + "; ε below every variance", signs=ALIVE)
def tiny_epsilon() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-12), nn.GELU())


@network(fewest=0, why=BACKWARD + "; (b − μ)·s + β, where s·b + t would cancel")
def far_mean() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(F.batch_norm(F.conv2d(x, m.weight, m.bias), m.mean, m.var)),
        weight=torch.randn(8, 3, 3, 3) / 5,
        bias=torch.randn(8) + 1e4,
        mean=torch.randn(8) + 1e4,
        var=torch.rand(8) + 0.5,
    )


@network(fewest=0, why=BACKWARD + "; all scales tiny, the shift carries everything", signs=TINY)
def all_scales_tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.GELU())


@network(fewest=0, why="a constant: β of each channel goes into the next conv's bias", signs=ZERO)
def all_scales_zero() -> nn.Module:
    head = nn.Conv2d(3, 4, 1)
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(m.conv(x)))) + m.head(x),
        conv=nn.Conv2d(3, 8, 1),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 4, 1),
        head=head,
    )


@network(fewest=0, why=BACKWARD)
def multiply_and_add() -> nn.Module:
    scale, shift = random_affine(8)
    return Wired(
        lambda m, x: F.gelu(m.conv(x) * m.scale + m.shift),
        conv=nn.Conv2d(3, 8, 3),
        scale=per_channel(scale),
        shift=per_channel(shift),
    )


@network(fewest=0, why=BACKWARD)
def subtract_and_divide() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu((m.conv(x) - m.mean) / m.std),
        conv=nn.Conv2d(3, 8, 3),
        mean=per_channel(torch.randn(8)),
        std=per_channel(torch.rand(8) + 0.2),
    )


@network(fewest=0, why=BACKWARD)
def constant_first() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(2.5 - m.shift - m.conv(x))),
        conv=nn.Conv2d(3, 8, 3),
        shift=per_channel(torch.randn(8)),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=BACKWARD + "; scalars are the same number for every channel")
def scalars() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(1.5 - m.bn(-m.conv(x) * 0.5 + 1.0) / 3),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why=BACKWARD + "; alpha multiplies what is added")
def add_with_alpha() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(torch.add(torch.sub(m.conv(x), m.shift, alpha=2), m.shift, alpha=0.5)),
        conv=nn.Conv2d(3, 8, 3),
        shift=per_channel(torch.randn(8)),
    )


@network(fewest=0, why=BACKWARD)
def addcmul() -> nn.Module:
    scale, shift = random_affine(8)
    return Wired(
        lambda m, x: F.gelu(torch.addcmul(m.shift, m.conv(x), m.scale)),
        conv=nn.Conv2d(3, 8, 3),
        scale=per_channel(scale),
        shift=per_channel(shift),
    )


@network(fewest=0, why="a layer scale is an affine map: into the last conv of its branch")
def layer_scale() -> nn.Module:
    return Wired(
        lambda m, x: x + m.gamma * m.second(F.gelu(m.first(x))),
        first=nn.Conv2d(3, 12, 1),
        second=nn.Conv2d(12, 3, 1),
        gamma=per_channel(random_affine(3)[0]),
    )


@network(fewest=0, why="the composition of two affine maps is one: into the conv")
def composed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.GELU())


@network(fewest=1, why="two maps compose to one; an input and an output absorb nothing", shapes=((8, 5, 5),))
def composed_alone() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8))


@network(
    fewest=1, why="the input absorbs nothing and GELU nothing; the map itself is one", shapes=((8, 5, 5),)
)
def alone_before_gelu() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(8), nn.GELU())


@network(fewest=0, why="(x/255 − mean)/std is one affine map: forward, into a conv without padding")
def input_normalisation() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.conv((x / 255 - m.mean) / m.std)),
        conv=nn.Conv2d(3, 8, 3),
        mean=per_channel(torch.rand(3)),
        std=per_channel(torch.rand(3) + 0.2),
    )


@network(fewest=0, why="a scale alone leaves the zero padding zero: W·s[in]")
def input_scale_before_padded_conv() -> nn.Module:
    return Wired(lambda m, x: F.gelu(m.conv(x / 255)), conv=nn.Conv2d(3, 8, 3, padding=1))


@network(
    fewest=0,
    why="forward into the conv; a padding constant (the mean) or one constant map mends the border",
    shapes=((9, 9, 3),),
    pixels=True,
)
def pixels_to_padded_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.conv((x.permute(0, 3, 1, 2).to(m.mean.dtype) / 255 - m.mean) / m.std)),
        conv=nn.Conv2d(3, 8, 3, padding=1),
        mean=per_channel(torch.rand(3)),
        std=per_channel(torch.rand(3) + 0.2),
    )


@network(fewest=1, why="the input takes nothing and the output is wanted as it is", shapes=IMAGE)
def input_normalisation_is_the_output() -> nn.Module:
    return Wired(
        lambda m, x: (x / 255 - m.mean) / m.std,
        mean=per_channel(torch.rand(3)),
        std=per_channel(torch.rand(3) + 0.2),
    )
