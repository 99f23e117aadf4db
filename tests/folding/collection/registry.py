"""What a network of the collection is, and the decorator that puts one in.

::

    @network(fewest=0, why="…")             the optimum and its derivation
    def conv2d() -> nn.Module:              the name, and how to assemble it
        return nn.Sequential(…)

    Network.build()  ──▶  Sample(model, inputs, dynamic_shapes)      seeded by the name
    Network.probes() ──▶  inputs to compare on: negative, large, other batch sizes

**Fewest** is the number of per-channel affine maps that an exact fold cannot avoid. A clamp in the place of
a ReLU, a PReLU in the place of a LeakyReLU, a padding constant, one constant map and one sign are no affine
maps. No layer may be computed twice or be written as a larger one (a Linear shared by tokens stays shared, a
conv gets no second set of outputs; a channel of ones beside its input is fine), and no activation may
appear where there was none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.folding.collection.statistics import MIXED, TINY_SCALE, TINY_SCALE_HALF, Signs, randomise

Shape = tuple[int, ...]
DynamicShapes = tuple[dict[int, Dim], ...]

IMAGE: tuple[Shape, ...] = ((3, 9, 9),)
EXAMPLE_BATCH = 2
LARGE = 1000.0


class Sample(NamedTuple):
    """A network ready to be folded.

    Attributes:
        model: In eval mode.
        inputs: What it is traced with, a batch of 2.
        dynamic_shapes: As `torch.export.export` takes them; None: every size is fixed.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    dynamic_shapes: DynamicShapes | None


@dataclass(frozen=True)
class Network:
    """One network of the collection.

    Attributes:
        name: The function that assembles it.
        topic: The module that it stands in.
        fewest: Per-channel affine maps that an exact fold cannot avoid.
        why: How that many are reached, and why fewer are not.
        assemble: Makes the module.
        shapes: Of the inputs, without the batch.
        signs: The kinds of channels its BatchNorms have.
        dtype: Of its weights.
        pixels: Whether its inputs are uint8.
        free: The axes that may vary, by name; empty: all sizes are fixed.
    """

    name: str
    topic: str
    fewest: int
    why: str
    assemble: Callable[[], nn.Module]
    shapes: tuple[Shape, ...] = IMAGE
    signs: Signs = MIXED
    dtype: torch.dtype = torch.float32
    pixels: bool = False
    free: Mapping[int, str] = field(default_factory=lambda: {0: "batch"}, hash=False)

    def build(self, dtype: torch.dtype | None = None) -> Sample:
        """The network with its random weights, the same at every call; ``dtype`` instead of its own."""
        wanted = dtype or self.dtype
        with torch.random.fork_rng():
            torch.manual_seed(crc32(self.name.encode()))
            model = self.assemble()
            randomise(model, self.signs, TINY_SCALE_HALF if self.dtype is torch.half else TINY_SCALE)
        # By way of its own precision, so that the float64 form has exactly its weights.
        model = model.to(self.dtype).to(wanted).eval()
        return Sample(model, self.inputs(wanted), self._dynamic_shapes())

    def inputs(
        self, dtype: torch.dtype, *, batch: int = EXAMPLE_BATCH, grow: int = 0, seed: int = 0
    ) -> tuple[Tensor, ...]:
        """Random inputs; ``grow`` adds to every free axis but the batch."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(self._input(shape, dtype, batch, grow, generator) for shape in self.shapes)

    def _input(
        self, shape: Shape, dtype: torch.dtype, batch: int, grow: int, generator: torch.Generator
    ) -> Tensor:
        sizes = [batch, *shape]
        for axis in self.free:
            sizes[axis] += grow if axis else 0
        if self.pixels:
            return torch.randint(0, 256, sizes, generator=generator, dtype=torch.uint8)
        # By way of its own precision: the float64 reference sees what the half network sees.
        return torch.randn(sizes, generator=generator).to(self.dtype).to(dtype)

    def probes(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        """Inputs to compare on: ordinary, another batch and size, negative, large."""
        vary = 0 in self.free
        yield self.inputs(dtype, seed=1)
        yield self.inputs(dtype, batch=5 if vary else EXAMPLE_BATCH, grow=2, seed=2)
        if self.pixels:
            return
        yield tuple(-x.abs() for x in self.inputs(dtype, batch=3 if vary else EXAMPLE_BATCH, seed=3))
        if self.dtype is not torch.half:  # which overflows
            yield tuple(x * LARGE for x in self.inputs(dtype, seed=4))

    def _dynamic_shapes(self) -> DynamicShapes | None:
        if not self.free:
            return None
        dims = {axis: Dim(name, min=2, max=512) for axis, name in self.free.items()}
        return tuple(dims for _ in self.shapes)


_NETWORKS: dict[str, Network] = {}


def network(
    *,
    fewest: int,
    why: str,
    shapes: tuple[Shape, ...] = IMAGE,
    signs: Signs = MIXED,
    dtype: torch.dtype = torch.float32,
    pixels: bool = False,
    free: Mapping[int, str] | None = None,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Put the network that the decorated function assembles into the collection. Args: see `Network`."""

    def add(assemble: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name, topic = assemble.__name__, assemble.__module__.rpartition(".")[2]
        if name in _NETWORKS:
            raise ValueError(f"two networks are called {name}")
        axes = {0: "batch"} if free is None else free
        _NETWORKS[name] = Network(name, topic, fewest, why, assemble, shapes, signs, dtype, pixels, axes)
        return assemble

    return add


def registered() -> list[Network]:
    """All networks put in so far; those of one topic in the order of its module."""
    return list(_NETWORKS.values())
