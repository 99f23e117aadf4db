"""Sums and products of two values, and of a value and a constant that differs over more than the channels.

::

    a + σ·b     (p·a + q₁) + σ·(p·b + q₂) = p·(a + σ·b) + q₁ + σ·q₂      one scale, any shifts
    a · b       (p₁·a) · (p₂·b) = p₁·p₂·(a·b)                            any scales, no shifts
    z + K       p·z + q + K′,  K′ = p·K + q₂ − q                         the constant takes any shift
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, compressed, varying_axes
from model_export.folding.rules.call import Call
from model_export.folding.rules.rule import FREE, Carrier, Cost, Rule, Stored, Writer, register

_aten = torch.ops.aten


class _Pair(Carrier):
    """An operator on two values that broadcast."""

    def _ranked(self, stored: Stored) -> Stored:
        form = Affine(self._grown(stored.form.scale), self._grown(stored.form.shift))
        return Stored(form, self._grown(stored.known))

    def _grown(self, values: Tensor) -> Tensor:
        return values.reshape([1] * (len(self.call.sizes) - values.dim()) + list(values.shape))

    def _part(self, index: int, form: Affine) -> Affine | None:
        """The result's form as one of input ``index``; None if it differs where that is broadcast."""
        sizes = self.call.input_sizes(index)
        parts = [self._shrunk(values, sizes) for values in (form.scale, form.shift)]
        scale, shift = parts
        return None if scale is None or shift is None else Affine(scale, shift)

    def _shrunk(self, values: Tensor, sizes: Sequence[int]) -> Tensor | None:
        missing = values.dim() - len(sizes)
        if varying_axes(values) & set(range(missing)):
            return None
        values = values.reshape(values.shape[missing:])
        spread = {axis for axis, size in enumerate(sizes) if size == 1}
        return None if varying_axes(values) & spread else values


class Sum(_Pair):
    """``a + weight·b``."""

    def __init__(self, call: Call, weight: float) -> None:
        super().__init__(call)
        self._weight = weight

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """Where both are constant."""
        first, second = (self._grown(known) for known in inputs)
        return first + self._weight * second

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """One scale for both; a constant has no scale of its own."""
        first, second = (self._ranked(s) for s in stored)
        scale = torch.where(first.constant, second.form.scale, first.form.scale)
        other = torch.where(second.constant, scale, second.form.scale)
        shift = _shift(first, scale) + self._weight * _shift(second, scale)
        both = first.constant & second.constant
        agreed = Affine(scale, torch.zeros_like(scale)).same(Affine(other, torch.zeros_like(other)))
        if not agreed or bool((shift.isnan() & ~both).any()):
            return None
        return Affine(torch.where(both, 0.0, scale), torch.where(both, self._constant(first, second), shift))

    def _constant(self, first: Stored, second: Stored) -> Tensor:
        return first.form(first.known) + self._weight * second.form(second.known)

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The scale for both, the shift for one of them."""
        scale = Affine(form.scale, torch.zeros_like(form.shift))
        second = Affine(form.scale, form.shift / self._weight)
        for choice in ((form, scale), (scale, second)):
            parts = [self._part(index, part) for index, part in enumerate(choice)]
            left, right = parts
            if left is not None and right is not None:
                yield left, right
            if not form.has_shift:
                return

    def company(self, index: int, stored: Stored) -> Iterator[Affine]:
        """The input's scale."""
        form = self._ranked(stored).form
        yield Affine(form.scale, torch.where(form.shift.isnan(), form.shift, 0.0))

    def complement(self, index: int, stored: Stored, form: Affine) -> Iterator[tuple[int, Affine]]:
        """The same scale, and the rest of the shift."""
        own = self._ranked(stored).form
        if not Affine(own.scale, form.shift).same(form):
            return
        weights = (1.0, self._weight)
        shift = (form.shift - weights[index] * own.shift) / weights[1 - index]
        part = self._part(1 - index, Affine(form.scale, shift))
        if part is not None:
            yield 1 - index, part


def _shift(stored: Stored, scale: Tensor) -> Tensor:
    """What an input adds to the result's shift: for a constant c stored as k, k − scale·c."""
    constant = stored.form(stored.known) - scale * stored.known
    return torch.where(stored.constant, constant, stored.form.shift)


class Product(_Pair):
    """``a·b``, or ``a/b``."""

    def __init__(self, call: Call, *, is_quotient: bool) -> None:
        super().__init__(call)
        self._is_quotient = is_quotient

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The product of the scales, if there are no shifts and nothing is forgotten."""
        first, second = (self._ranked(s).form for s in stored)
        if any(bool((form.shift != 0).any()) for form in (first, second)):  # NaN too
            return None
        if self._is_quotient and bool((second.scale == 0).any()):
            return None
        scale = first.scale / second.scale if self._is_quotient else first.scale * second.scale
        return Affine(scale, torch.zeros_like(scale))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The scale for one of the two."""
        if bool((form.shift != 0).any()):
            return
        ranks = [len(self.call.input_sizes(index)) for index in (0, 1)]
        for index in (0,) if self._is_quotient else (0, 1):
            part = self._part(index, form)
            if part is not None:
                plain = Affine.identity(ranks[1 - index])
                yield (part, plain) if index == 0 else (plain, part)

    def near(self, form: Affine) -> Iterator[Affine]:
        """The scale without the shift."""
        yield Affine(form.scale, torch.zeros_like(form.shift))


class Offset(Carrier):
    """``z + K``, K a constant over more axes than the channels': it takes any shift."""

    def __init__(self, call: Call, constant: Tensor, *, sign: float = 1.0) -> None:
        super().__init__(call)
        self._constant = constant * sign

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The input's form without its shift; the constant keeps that."""
        form = stored[0].form
        return None if bool(form.shift.isnan().any()) else Affine(form.scale, torch.zeros_like(form.shift))

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The scale alone."""
        yield (Affine(form.scale, torch.zeros_like(form.shift)),)

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """Free for any shifts, where the scales are one."""
        if arriving is None or bool(form.shift.isnan().any()):
            return None
        return FREE if arriving.same(Affine(form.scale, torch.zeros_like(form.shift))) else None

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The sum with its new constant."""
        shift = stored[0].form.shift
        if stored[0].form.is_identity and form.is_identity:
            return writer.again(self.call, inputs)
        value = compressed(form.scale * self._constant + form.shift - shift)
        constant = writer.constant(self.call, "offset", value.to)
        return writer.call(self.call, _aten.add.Tensor, inputs[0], constant)


def _sum(sign: float, call: Call) -> Rule | None:
    alpha = call.argument("alpha")
    if not isinstance(alpha, int | float) or alpha == 0:
        return None
    if len(call.values) == 2:
        ordered = call.values == (call.argument("self"), call.argument("other"))
        return Sum(call, sign * alpha) if ordered else None
    constant = call.constant("other")
    if constant is None or constant.dim() > len(call.sizes) or call.input_sizes() != call.sizes:
        return None
    grown = constant.reshape([1] * (len(call.sizes) - constant.dim()) + list(constant.shape))
    return None if varying_axes(grown) & call.free_axes() else Offset(call, grown, sign=sign * alpha)


def _product(is_quotient: bool, call: Call) -> Rule | None:
    ordered = call.values == (call.argument("self"), call.argument("other"))
    return Product(call, is_quotient=is_quotient) if len(call.values) == 2 and ordered else None


register(_aten.add.Tensor)(partial(_sum, 1.0))
register(_aten.sub.Tensor)(partial(_sum, -1.0))
register(_aten.mul.Tensor)(partial(_product, False))
register(_aten.div.Tensor, _aten.true_divide.Tensor)(partial(_product, True))
