"""Maxima: max pooling, the largest value over axes, the larger of two tensors.

::

    max(p·z + q) = p·max(z) + q        for p ≥ 0, the same for all values compared

A negative scale does not pass, but a sign put behind the pool does for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from model_export.folding.algebra import Affine, varying_axes
from model_export.folding.rules.axes import Reduction, trailing
from model_export.folding.rules.call import Call
from model_export.folding.rules.rule import Carrier, Rule, Stored, register

_aten = torch.ops.aten


class Extreme(Carrier):
    """The largest (or smallest) value over some axes. Args: which axes, and whether they stay."""

    def __init__(self, call: Call, reduction: Reduction) -> None:
        super().__init__(call)
        self._reduction = reduction

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """Constants that are the same over the axes pass."""
        if varying_axes(inputs[0]) & self._reduction.axes:
            return super().known(inputs)
        return self._reduction.shrink(inputs[0])

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The form, if it is increasing and the same over the axes."""
        form = stored[0].form
        if varying_axes(form.scale, form.shift) & self._reduction.axes:
            return None
        if bool(((form.scale < 0) & ~stored[0].constant).any()):
            return None
        return Affine(self._reduction.shrink(form.scale), self._reduction.shrink(form.shift))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The form, if it is increasing and the same over the axes."""
        if not varying_axes(form.scale, form.shift) & self._reduction.kept_axes and bool(
            (form.scale >= 0).all()
        ):
            yield (Affine(self._reduction.grow(form.scale), self._reduction.grow(form.shift)),)

    def near(self, form: Affine) -> Iterator[Affine]:
        """The form with every decreasing channel turned over."""
        sign = torch.where(form.scale < 0, -1.0, 1.0)
        yield Affine(form.scale * sign, form.shift * sign)


class Larger(Carrier):
    """The larger (or smaller) of two tensors: both must have one increasing form."""

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """Where both are constant."""
        larger = self.call.operator.target is _aten.maximum.default
        return torch.maximum(*inputs) if larger else torch.minimum(*inputs)

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The form of both."""
        first, second = stored
        if not first.form.same(second.form) or bool((first.form.scale < 0).any()):
            return None
        return first.form

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The form, for both."""
        if bool((form.scale >= 0).all()):
            yield form, form

    def near(self, form: Affine) -> Iterator[Affine]:
        """The form with every decreasing channel turned over."""
        sign = torch.where(form.scale < 0, -1.0, 1.0)
        yield Affine(form.scale * sign, form.shift * sign)

    def company(self, index: int, stored: Stored) -> Iterator[Affine]:
        """The input's form."""
        yield stored.form


def _pool(spatial: int, call: Call) -> Rule | None:
    if len(call.values) != 1 or _reads_indices(call):
        return None
    return Extreme(call, trailing(call, spatial))


def _reads_indices(call: Call) -> bool:
    return call.node is not call.operator and bool(call.node.args[1] != 0)


for _rank in (1, 2, 3):
    register(
        getattr(_aten, f"max_pool{_rank}d").default,
        getattr(_aten, f"adaptive_max_pool{_rank}d").default,
    )(partial(_pool, _rank))
for _rank in (2, 3):
    register(getattr(_aten, f"max_pool{_rank}d_with_indices").default)(partial(_pool, _rank))
register(_aten.max_pool1d_with_indices.default)(partial(_pool, 1))


@register(_aten.amax.default, _aten.amin.default)
def _amax(call: Call) -> Rule:
    return Extreme(call, Reduction.of(call, call.argument("dim"), keepdim=call.argument("keepdim")))


def larger(call: Call) -> Rule | None:
    """The rule for `maximum` and `minimum` of two values of one shape."""
    same = len(call.values) == 2 and call.input_sizes(0) == call.input_sizes(1)
    return Larger(call) if same else None
