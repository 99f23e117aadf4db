"""Padding with a number: a border that must be stored in the form of what it surrounds.

::

    pad(z, v) stored as h(·):    pad(h(z), h(v))       one number: the pad's own value
                                 pad(h(z), 0) + map    one a channel: a constant map that is 0 inside
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, compressed, varying_axes
from model_export.folding.rules.call import Call
from model_export.folding.rules.rearrange import moved
from model_export.folding.rules.rule import (
    FREE,
    Carrier,
    Cost,
    Leftover,
    Remainder,
    Rule,
    Stored,
    Writer,
    elements,
    register,
)

_aten = torch.ops.aten


class Padded(Carrier):
    """Padding with one number. Args: sizes as torch has them (last axis first), and the number."""

    def __init__(self, call: Call, sizes: Sequence[int], value: float) -> None:
        super().__init__(call)
        self._sizes = list(sizes)
        self._value = value
        rank = len(call.sizes)
        pairs = [self._sizes[index : index + 2] for index in range(0, len(self._sizes), 2)]
        self._axes = {rank - 1 - place for place, pair in enumerate(pairs) if pair != [0, 0]}

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """A constant channel stays one, though its border is another constant."""
        inside = inputs[0]
        if (
            bool(inside.isnan().all())
            or self.call.free_axes() & self._axes
            or varying_axes(inside) & self._axes
        ):
            return super().known(inputs)
        sizes = [
            size if axis in self._axes else inside.shape[axis]
            for axis, size in enumerate(self.call.input_sizes())
        ]
        padded = torch.nn.functional.pad(inside.expand(sizes), self._sizes, value=self._value)
        return compressed(torch.where(inside.isnan(), torch.nan, padded))

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The form, if it is the same over the padded axes; new channels are stored as they are."""
        form = stored[0].form
        return Affine(self._extended(form.scale, 1.0), self._extended(form.shift, 0.0))

    def _extended(self, values: Tensor, fill: float) -> Tensor:
        rank = values.dim()
        pads = list(self._sizes)
        for axis in range(rank):
            place = 2 * (rank - 1 - axis)
            if place < len(pads) and values.shape[axis] == 1 and self.call.input_sizes()[axis] != 1:
                pads[place : place + 2] = [0, 0]
        return compressed(torch.nn.functional.pad(values, pads, value=fill))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The form of what is inside."""
        yield (Affine(self._inside(form.scale), self._inside(form.shift)),)

    def _inside(self, values: Tensor) -> Tensor:
        rank = values.dim()
        for axis in self._axes:
            if values.shape[axis] > 1:
                before = self._sizes[2 * (rank - 1 - axis)]
                values = values.narrow(axis, before, self.call.input_sizes()[axis])
        return compressed(values)

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """Free where the border is one number."""
        if arriving is None or not arriving.same(form, known):
            return None
        border = self._border(form)
        if border is not None and border.numel() == 1:
            return FREE
        return None if border is None else (Leftover(Remainder.BORDER, elements(self.call)),)

    def _border(self, form: Affine) -> Tensor | None:
        """What the border holds: [1] if it is one number; else one a channel. None: finer than that."""
        border = compressed(form(torch.tensor(self._value, dtype=torch.float64)))
        if varying_axes(border) & self._axes:
            return self._uniform_part(form)
        # Where nothing is said about what is stored, nobody reads it.
        return compressed(torch.where(border.isnan(), 0.0, border))

    def _uniform_part(self, form: Affine) -> Tensor | None:
        """New channels are padded with the number itself; that is one number if they are all there is."""
        alone = len(self._axes) == 1 and form(torch.tensor(self._value, dtype=torch.float64)).dim() > 0
        return torch.full([1] * form.scale.dim(), self._value, dtype=torch.float64) if alone else None

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The pad with its new number, and the map for numbers that differ."""
        border = self._border(form)
        if border is None:
            raise ValueError(f"{self.call.node.name} cannot be padded in this form")
        target, pads = _aten.constant_pad_nd.default, self._sizes
        if border.numel() == 1:
            return writer.call(self.call, target, inputs[0], pads, float(border))
        inside = writer.call(self.call, target, inputs[0], pads, 0.0)
        zeros = writer.call(self.call, _aten.zeros_like.default, inputs[0])
        frame = writer.call(self.call, target, zeros, pads, 1.0)
        values = writer.constant(self.call, "border", border.to)
        return writer.call(self.call, _aten.addcmul.default, inside, frame, values)


@register(_aten.constant_pad_nd.default)
def _constant_pad(call: Call) -> Rule | None:
    return _padded(call, call.argument("value"))


@register(_aten.pad.default)
def _pad(call: Call) -> Rule | None:
    if call.argument("mode") != "constant":
        return moved(call)
    return _padded(call, call.argument("value") or 0.0)


def _padded(call: Call, value: object) -> Rule | None:
    sizes = call.argument("pad")
    if not isinstance(value, int | float) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        return None
    return Padded(call, sizes, float(value)) if len(call.values) == 1 else None
