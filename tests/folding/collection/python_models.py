"""Models that symbolic tracing cannot follow: Python decides what runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.folding.collection.registry import network
from tests.folding.collection.wiring import Wired

INTO_CONVS = "torch.export sees the path that runs; each BatchNorm on it goes into its conv"


class SizeDependent(nn.Module):
    """Halves the image until it is small: a loop over a size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleDict({str(size): nn.BatchNorm2d(8) for size in (12, 6, 3)})

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8, 3, 3]."""
        x = self.stem(x)
        while x.shape[-1] >= 3:
            x = F.relu(self.blocks[str(int(x.shape[-1]))](x))
            if x.shape[-1] == 3:
                break
            x = F.avg_pool2d(x, 2)
        return x


class Shortcut(nn.Module):
    """Adds the input where the shapes agree, and asks Python whether they do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        """relu(BN(conv(x)) (+ x))."""
        y: Tensor = self.bn(self.conv(x))
        if x.size(1) == y.size(1):
            y = y + x
        if scale is not None:
            y = y * scale
        return F.relu(y)


class NamedOutputs(nn.Module):
    """Gives a dictionary, as detection and segmentation models do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.heads = nn.ModuleDict({"mask": nn.Conv2d(8, 2, 1), "edge": nn.Conv2d(8, 1, 1)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """One output a head, by its name."""
        features = self.stem(x)
        return {name: head(features) for name, head in self.heads.items()}


class Collected(nn.Module):
    """Appends to a list under `isinstance`, with a formatted message that tracing would trip over."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """The image after each conv's block."""
        if x.dim() != 4:
            raise ValueError(f"expected 4 axes, not {x.dim()}, in {tuple(x.shape)}")
        outputs = []
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                outputs.append(x)
            x = layer(x)
        return [*outputs[1:], x]


class AnyNumber(nn.Module):
    """Takes any number of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, *images: Tensor) -> Tensor:
        """The blocks of all images, concatenated."""
        return F.gelu(torch.cat([self.bn(self.conv(image)) for image in images], 1))


@network(
    fewest=0, why=INTO_CONVS + "; the later ones by way of means and clamps", shapes=((3, 12, 12),), free={}
)
def loop_over_size() -> nn.Module:
    return SizeDependent()


@network(fewest=0, why=INTO_CONVS)
def branch_on_shape() -> nn.Module:
    return nn.Sequential(Shortcut(3, 8), Shortcut(8, 8), Shortcut(8, 4))


@network(fewest=0, why=INTO_CONVS + "; the number given by keyword is one more scale")
def keyword_argument() -> nn.Module:
    return Wired(lambda m, x: F.gelu(m.block(x, scale=0.5)), block=Shortcut(3, 8))


@network(fewest=0, why=INTO_CONVS)
def named_outputs() -> nn.Module:
    return NamedOutputs()


@network(fewest=0, why=INTO_CONVS)
def list_of_outputs() -> nn.Module:
    return Collected()


@network(fewest=0, why=INTO_CONVS + ", once an image", shapes=((3, 6, 6), (3, 6, 6)), free={})
def any_number_of_images() -> nn.Module:
    return AnyNumber()


@network(fewest=0, why=INTO_CONVS + "; the assertion reads a size, not a value")
def asserting() -> nn.Module:
    def forward(m: Wired, x: Tensor) -> Tensor:
        y: Tensor = m.get_submodule("block")(x)
        assert y.shape[1] == 8
        rows, columns = (int(size) for size in y.shape[2:])
        return F.gelu(y).reshape(-1, 8, rows * columns)

    return Wired(forward, block=nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
