"""Small networks for the fold's own tests: random statistics, and random compositions of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = Callable[[int, torch.Generator], nn.Module]
CHANNELS = 4  # everywhere inside a random network, so that any parts fit together


def randomised(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """The model in eval mode and float64: scales of every sign, tiny and zero ones, small variances."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
            _randomise(module, generator)
    return model.eval().double()


def _randomise(norm: nn.modules.batchnorm._NormBase, generator: torch.Generator) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scales = torch.tensor([1.3, -0.7, 1e-9, 0.0, 0.5, -1.6]).repeat(norm.num_features)
    order = torch.randperm(len(scales), generator=generator)[: norm.num_features]
    with torch.no_grad():
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(1e-6, 2.0, generator=generator)
        norm.weight.copy_(scales[order] * torch.sqrt(norm.running_var + norm.eps))
        norm.bias.normal_(generator=generator)


class Both(nn.Module):
    """Two branches of one value, joined."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self._join, self.first, self.second = join, first, second

    def forward(self, x: Tensor) -> Tensor:
        """join(first(x), second(x))."""
        return self._join(self.first(x), self.second(x))


class Halves(nn.Module):
    """The two halves of the channels, exchanged, one of them through a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS // 2)

    def forward(self, x: Tensor) -> Tensor:
        """cat(BN(second), first)."""
        first, second = x.chunk(2, 1)
        return torch.cat([self.norm(second), first], 1)


def shuffled(x: Tensor) -> Tensor:
    """Channel shuffle as ShuffleNet spells it."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        """function(x)."""
        return self._function(x)


def _conv(kernel: int, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(CHANNELS, CHANNELS, kernel, **options)  # type: ignore[arg-type]  # a table of options


def _applied(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Applied(function)


def _norm() -> nn.Module:
    return nn.BatchNorm2d(CHANNELS)


# Every part takes and gives [N, 4, H, W] with H and W of any size from 2 up.
PARTS: dict[str, Callable[[], nn.Module]] = {
    "norm": _norm,
    "conv": _conv(3, padding=1),
    "pointwise": _conv(1),
    "grouped": _conv(3, padding=1, groups=2, bias=False),
    "depthwise": _conv(3, padding=1, groups=CHANNELS),
    "reflect": _conv(3, padding=1, padding_mode="reflect"),
    "dilated": _conv(3, padding=2, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1, groups=2),
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "prelu": lambda: nn.PReLU(CHANNELS),
    "silu": nn.SiLU,
    "max_pool": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "avg_pool": lambda: nn.AvgPool2d(3, stride=1, padding=1),
    "avg_pool_inside": lambda: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "dropout": nn.Dropout,
    "pad": lambda: nn.ZeroPad2d(1),
    "upsample": lambda: nn.Upsample(scale_factor=2),
    "shuffle": _applied(shuffled),
    "flip": _applied(lambda x: x.flip(3)),
    "halves": Halves,
    "scale": _applied(lambda x: 1.5 - x * 0.5),
    "squeeze": _applied(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
}
JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "concat": lambda a, b: F.max_pool2d(torch.cat([a, b], 1)[:, ::2], 1),
}
# Parts that keep the size of an image, so that two branches can be joined.
SIZED = tuple(name for name in PARTS if name not in ("pad", "upsample"))


def composed(names: Sequence[str | tuple[str, Sequence[str], Sequence[str]]], seed: int) -> nn.Module:
    """A network of parts in order; a tuple is two branches and how they are joined."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [_built(name) for name in names]
    return randomised(nn.Sequential(*layers), torch.Generator().manual_seed(seed))


def _built(name: str | tuple[str, Sequence[str], Sequence[str]]) -> nn.Module:
    if isinstance(name, str):
        return PARTS[name]()
    join, first, second = name
    branches = [nn.Sequential(*(PARTS[part]() for part in branch)) for branch in (first, second)]
    return Both(JOINS[join], *branches)
