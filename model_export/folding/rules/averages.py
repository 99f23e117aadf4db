"""Weighted sums over positions: average pooling, means, sums, interpolation.

::

    y = Σ w·z over positions, the same weights in every channel
    Σ w·(p·z + q) = p·y + q·κ,    κ = Σ w

κ is 1 for a mean; the number of values for a sum; and smaller at the border where padding is counted. There a
shift q needs ``q·(1 − κ)`` added: one constant map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, compressed, varying_axes
from model_export.folding.rules.axes import Reduction, trailing
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
_SUMS = (_aten.sum.dim_IntList, _aten.sum.default)
# Average pools that can be told what to divide by.
_DIVIDED_POOLS = (_aten.avg_pool2d.default, _aten.avg_pool3d.default)


class Average(Carrier):
    """A weighted sum over some axes. Args: which axes, and whether they stay."""

    def __init__(self, call: Call, reduction: Reduction) -> None:
        super().__init__(call)
        self._reduction = reduction

    @cached_property
    def _weight(self) -> Tensor:
        """κ: [1] along each axis where it is the same."""
        kappa = compressed(self.call.run(torch.ones(self.call.input_sizes(), dtype=torch.float64)))
        # Interpolation weights sum to 1 up to rounding.
        rounded = torch.where((kappa - kappa.round()).abs() < 1e-12, kappa.round(), kappa)
        return compressed(rounded)

    @property
    def _is_even(self) -> bool:
        """Whether κ is one number, at every size."""
        return self._weight.numel() == 1 and not self._depends_on_size

    @property
    def _depends_on_size(self) -> bool:
        """Whether other sizes than the example's have another κ: sums, and last windows that are cut off."""
        is_free = bool(self._reduction.axes & self.call.free_axes(self.call.values[0]))
        return is_free and (self.call.operator.target in _SUMS or self._has_cut_windows)

    @property
    def _has_cut_windows(self) -> bool:
        if self.call.operator.target not in _DIVIDED_POOLS:
            return False
        return bool(self.call.argument("ceil_mode")) and self.call.argument("divisor_override") is not None

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """Constants that are the same over the axes, times κ."""
        if varying_axes(inputs[0]) & self._reduction.axes or bool(inputs[0].isnan().all()):
            return super().known(inputs)
        image = self._image(torch.where(inputs[0].isnan(), 0.0, inputs[0]))
        gaps = self._reduction.shrink(inputs[0]).isnan()
        return super().known(inputs) if image is None else torch.where(gaps, torch.nan, image)

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The scale, and the sum of the shifts."""
        form = stored[0].form
        if varying_axes(form.scale) & self._reduction.axes:
            return None
        gaps = form.shift.isnan()
        if varying_axes(gaps) & self._reduction.axes:
            return None
        shift = self._image(torch.where(gaps, 0.0, form.shift))
        if shift is None:
            return None
        unknown_shift = torch.where(self._reduction.shrink(gaps), torch.nan, shift)
        return Affine(self._reduction.shrink(form.scale), unknown_shift)

    def _image(self, shift: Tensor) -> Tensor | None:
        """The sum of a shift over the positions."""
        if bool((shift == 0).all()):
            return torch.zeros([1] * len(self.call.sizes), dtype=torch.float64)
        if not varying_axes(shift) & self._reduction.axes and self._is_even:
            return self._reduction.shrink(shift) * self._weight
        if self.call.free_axes(self.call.values[0]) & self._reduction.axes:
            return None
        return compressed(self.call.run(shift.expand(self.call.input_sizes()).contiguous()))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The scale, and the shift divided by κ (by that inside, where it is smaller at the border)."""
        if varying_axes(form.scale, form.shift) & self._reduction.kept_axes or self._depends_on_size:
            return
        scale, shift = self._reduction.grow(form.scale), self._reduction.grow(form.shift)
        yield (Affine(scale, shift / self._weight.max()),)
        if form.has_shift and not self._is_even:
            yield (Affine(scale, torch.zeros_like(shift)),)

    def near(self, form: Affine) -> Iterator[Affine]:
        """The scale alone, where a shift would leave a border."""
        if not self._is_even:
            yield Affine(form.scale, torch.zeros_like(form.shift))

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """Free where the form passes; a constant map where only the border differs."""
        if arriving is not None and arriving.same(_filled(form, arriving), known):
            return FREE
        wanted = next(self.backward(form), None)
        fixed = not self.call.free_axes() & self._reduction.kept_axes
        if (
            fixed
            and not self._is_even
            and wanted is not None
            and stored[0].form.same(wanted[0], stored[0].known)
        ):
            return (Leftover(Remainder.BORDER, elements(self.call)),)
        return None

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The call, and the border's map if it needs one."""
        result = writer.again(self.call, inputs)
        arriving = self.forward(stored)
        if arriving is not None and arriving.same(_filled(form, arriving)):
            return result
        inside = self._weight.max()
        border = compressed(form.shift * (1 - self._weight / inside))
        if bool((border == 0).all()) or bool(border.isnan().any()):
            return result
        return writer.call(self.call, _aten.add.Tensor, result, writer.constant(self.call, "map", border.to))


def _filled(form: Affine, arriving: Affine) -> Affine:
    free = form.shift.isnan()
    return Affine(
        torch.where(free, arriving.scale, form.scale), torch.where(free, arriving.shift, form.shift)
    )


def _trailing(spatial: int, call: Call) -> Rule | None:
    return Average(call, trailing(call, spatial)) if len(call.values) == 1 else None


for _rank in (1, 2, 3):
    register(
        getattr(_aten, f"avg_pool{_rank}d").default,
        getattr(_aten, f"adaptive_avg_pool{_rank}d").default,
    )(partial(_trailing, _rank))
register(_aten.upsample_linear1d.vec, _aten.upsample_nearest1d.vec, _aten._upsample_nearest_exact1d.vec)(
    partial(_trailing, 1)
)
register(
    _aten.upsample_nearest2d.vec,
    _aten._upsample_nearest_exact2d.vec,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_bicubic2d.vec,
    _aten._upsample_bilinear2d_aa.vec,
    _aten._upsample_bicubic2d_aa.vec,
)(partial(_trailing, 2))
register(_aten.upsample_nearest3d.vec, _aten._upsample_nearest_exact3d.vec, _aten.upsample_trilinear3d.vec)(
    partial(_trailing, 3)
)


@register(_aten.mean.dim, _aten.sum.dim_IntList)
def _over_axes(call: Call) -> Rule:
    return Average(call, Reduction.of(call, call.argument("dim"), keepdim=call.argument("keepdim")))


@register(_aten.mean.default, _aten.sum.default)
def _over_all(call: Call) -> Rule:
    return Average(call, Reduction.of(call, None, keepdim=False))
