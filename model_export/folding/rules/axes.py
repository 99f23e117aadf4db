"""Which axes an operator takes together, and how a per-channel map gets past them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from model_export.folding.rules.call import Call


@dataclass(frozen=True, slots=True)
class Reduction:
    """Axes of an input over which an operator computes, and whether its output still has them."""

    axes: frozenset[int]
    keeps: bool

    @staticmethod
    def of(call: Call, axes: Sequence[int] | int | None, *, keepdim: bool) -> Reduction:
        """From an operator's ``dim`` and ``keepdim``; no axes: all of them."""
        rank = len(call.input_sizes())
        listed = range(rank) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
        return Reduction(frozenset(axis % rank for axis in listed), keepdim)

    @property
    def kept_axes(self) -> frozenset[int]:
        """The axes as the output has them."""
        return self.axes if self.keeps else frozenset()

    def shrink(self, values: Tensor) -> Tensor:
        """From the input's rank to the output's; ``values`` has size 1 on the axes."""
        if self.keeps:
            return values
        return values.reshape([size for axis, size in enumerate(values.shape) if axis not in self.axes])

    def grow(self, values: Tensor) -> Tensor:
        """From the output's rank to the input's."""
        if not self.keeps:
            for axis in sorted(self.axes):
                values = values.unsqueeze(axis)
        return values


def trailing(call: Call, count: int) -> Reduction:
    """The last ``count`` axes, kept: a pool's."""
    rank = len(call.input_sizes())
    return Reduction(frozenset(range(rank - count, rank)), keeps=True)
