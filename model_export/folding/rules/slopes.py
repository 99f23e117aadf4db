"""LeakyReLU and PReLU.

::

    y = z if z > 0 else α·z        stored as p·y:
    p > 0                          the same slope, of p·z
    p < 0                          slope 1/α, of p·α·z     (positive α only)

A shift does not pass: it stays behind, or goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, Interval, compressed, varying_axes
from model_export.folding.rules.call import Call
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


class Slope(Carrier):
    """A line with a knee at zero. Args: slope below the knee, of the rank of z."""

    def __init__(self, call: Call, slope: Tensor) -> None:
        super().__init__(call)
        self.slope = slope

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """The line's value at the constants."""
        return torch.where(inputs[0] > 0, inputs[0], self.slope * inputs[0])

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The scale, if there is no shift."""
        form = stored[0].form
        constant = stored[0].constant | (form.scale == 0)
        turned = (form.scale < 0) & ~constant
        if bool((turned & (self.slope <= 0)).any()) or bool(((form.shift != 0) & ~constant).any()):
            return None
        scale = torch.where(turned, form.scale / torch.where(turned, self.slope, 1.0), form.scale)
        number = form(stored[0].known)
        after = torch.where(number > 0, number, self.slope * number)
        return Affine(torch.where(constant, 0.0, scale), torch.where(constant, after, 0.0))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The scale, if there is no shift but of what is stored as a number."""
        flat = form.scale == 0
        turned = form.scale < 0
        if bool(((form.shift != 0) & ~flat & ~form.shift.isnan()).any()):
            return
        if bool((turned & (self.slope <= 0)).any()) or bool(
            (flat & (form.shift < 0) & (self.slope == 0)).any()
        ):
            return
        below = torch.where(self.slope == 0, 1.0, self.slope)
        number = torch.where(form.shift < 0, form.shift / below, form.shift)
        yield (
            Affine(
                torch.where(turned, form.scale * self.slope, form.scale),
                torch.where(flat, number, form.shift),
            ),
        )

    def near(self, form: Affine) -> Iterator[Affine]:
        """The scale without the shift; positive where the slope cannot be turned over."""
        stuck = (form.scale < 0) & (self.slope <= 0)
        scale = torch.where(stuck, -form.scale, form.scale)
        yield Affine(scale, torch.where(form.scale == 0, form.shift, 0.0))

    def straightened(self, after: Affine, interval: Interval) -> Affine | None:
        """The map of z that does for ``after(y)`` under this clip, where that cuts the knee off everywhere.

        The knee is at y = 0, so at height t. Above it are z > 0 for s > 0, and α·z for s < 0.
        """
        knee = after.shift
        cut_below, cut_above = interval.low >= knee, interval.high <= knee
        if bool((self.slope <= 0).any()) or not bool((cut_below | cut_above).all()):
            return None
        keeps_positive = torch.where(cut_below, after.scale > 0, after.scale < 0)
        return Affine(torch.where(keeps_positive, after.scale, after.scale * self.slope), after.shift)

    def _new_slope(self, form: Affine) -> Tensor:
        turned = form.scale < 0
        return compressed(torch.where(turned, 1.0 / torch.where(turned, self.slope, 1.0), self.slope))

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """Free where the slope stays one number, or what it was."""
        if arriving is None or not arriving.same(form, known):
            return None
        slope = self._new_slope(self._reading_form(stored[0]))
        if slope.shape == self.slope.shape and bool((slope == self.slope).all()):
            return FREE
        if not varying_axes(slope) <= {1}:
            return None
        return (Leftover(Remainder.SLOPE, elements(self.call)),) if slope.numel() > 1 else FREE

    def _reading_form(self, stored: Stored) -> Affine:
        return Affine(torch.where(stored.constant, 1.0, stored.form.scale), stored.form.shift)

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The call itself, a LeakyReLU or a PReLU."""
        slope = self._new_slope(self._reading_form(stored[0]))
        if slope.shape == self.slope.shape and bool((slope == self.slope).all()):
            return writer.again(self.call, inputs)
        if slope.numel() == 1:
            return writer.call(self.call, _aten.leaky_relu.default, inputs[0], float(slope))
        slopes = slope.reshape(-1)
        weight = writer.constant(self.call, "slope", slopes.to)
        return writer.call(self.call, _aten.prelu.default, inputs[0], weight)


def _number(name: str, call: Call) -> Rule:
    return Slope(call, torch.full([1] * len(call.sizes), float(call.argument(name)), dtype=torch.float64))


@register(_aten.prelu.default)
def _prelu(call: Call) -> Rule | None:
    weight, rank = call.constant("weight"), len(call.sizes)
    if weight is None or rank < 2:
        return None
    return Slope(call, compressed(weight.reshape(1, -1, *[1] * (rank - 2))))


register(_aten.leaky_relu.default)(partial(_number, "negative_slope"))
