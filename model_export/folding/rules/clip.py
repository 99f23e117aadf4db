"""Clips: ReLU, ReLU6, Hardtanh, clamp, Hardsigmoid …

::

    y = clip(a(z), L, H)        stored as h(y):    clip(h(a(z)), images of L and H under h)

so a clip passes any form in either direction: its ends move along, one pair a channel. A channel that is
constant, or whose stored scale is zero, gets two equal ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, Interval, broadcast, compressed, varying_axes
from model_export.folding.rules.call import Call
from model_export.folding.rules.extremes import larger
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


class Clip(Carrier):
    """``clip(before(z), interval)``.

    Args:
        call: The operator's call.
        interval: The ends, of the rank of z.
        before: What the operator does first (Hardsigmoid: z/6 + 1/2).
        is_whole: Whether the call itself computes just this, so that it may stay as it is.
    """

    def __init__(self, call: Call, interval: Interval, before: Affine, *, is_whole: bool = True) -> None:
        super().__init__(call)
        self.interval = interval
        self.before = before
        self._is_whole = is_whole

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """The clip of the constants; a clip whose ends meet is one as well."""
        image = self.interval(self.before(inputs[0]))
        low, high = broadcast(self.interval.low, self.interval.high)
        return torch.where((low == high) & image.isnan(), low, image)

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The input's form. Where z is constant the clip may write anything: the constant itself."""
        form = stored[0].form.after(self.before.inverse())
        constant = self._constant(stored[0])
        shift = torch.where(constant, 0.0, form.shift)
        if bool(shift.isnan().any()):
            return None
        return Affine(torch.where(constant, 1.0, form.scale), shift)

    def _constant(self, stored: Stored) -> Tensor:
        return ~self.known([stored.known]).isnan()

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The output's form, before what comes first."""
        yield (form.after(self.before),)

    def output_suggestions(self) -> Iterator[Affine]:
        """The form in which a clip from below is a plain ReLU."""
        low, _ = broadcast(self.interval.low, self.interval.high)
        if self.interval.is_from_below and bool(low.isfinite().all()):
            yield Affine(torch.ones_like(low), compressed(-low))

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """One remainder for every side on which the ends differ from channel to channel."""
        if self._stays(stored[0], form):
            return FREE
        if arriving is None or not _passes(arriving, form, known):
            return None
        ends = self._ends(stored[0], form)
        per_channel = [end for end in (ends.low, ends.high) if end.numel() > 1]
        if per_channel:
            return tuple(Leftover(Remainder.CLAMP, elements(self.call)) for _ in per_channel)
        return FREE if _is_relu(ends) else (Leftover(Remainder.SCALAR, elements(self.call)),)

    def _stays(self, stored: Stored, form: Affine) -> bool:
        identity = Affine.identity(form.scale.dim())
        return self._is_whole and stored.form.same(identity, stored.known) and form.is_identity

    def _ends(self, stored: Stored, form: Affine) -> Interval:
        ends = self.interval.image(form).where(form(self.known([stored.known])))
        # Where the stored scale is zero the result is stored as one number.
        flat = torch.where(form.scale == 0, form.shift, torch.nan)
        ends = ends.where(flat)
        low, high = (
            torch.where(end.isnan(), 0.0, end) for end in (ends.low, ends.high)
        )  # nobody reads these
        return Interval(compressed(low), compressed(high))

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The call itself, a ReLU, or a clamp."""
        if self._stays(stored[0], form):
            return writer.again(self.call, inputs)
        ends = self._ends(stored[0], form)
        if _is_relu(ends):
            return writer.call(self.call, _aten.relu.default, inputs[0])
        if ends.low.numel() == ends.high.numel() == 1:
            numbers = [None if end.isinf() else float(end) for end in (ends.low, ends.high)]
            return writer.call(self.call, _aten.clamp.default, inputs[0], *numbers)
        low, high = self._constant_end(writer, "low", ends.low), self._constant_end(writer, "high", ends.high)
        return writer.call(self.call, _aten.clamp.Tensor, inputs[0], low, high)

    def _constant_end(self, writer: Writer, name: str, end: Tensor) -> fx.Node | None:
        return None if bool(end.isinf().all()) else writer.constant(self.call, name, end.to)


def _passes(arriving: Affine, form: Affine, known: Tensor) -> bool:
    free = ~known.isnan() | (form.scale == 0)
    filled = Affine(
        torch.where(free, arriving.scale, form.scale), torch.where(free, arriving.shift, form.shift)
    )
    return arriving.same(filled)


def _is_relu(ends: Interval) -> bool:
    return (
        ends.low.numel() == ends.high.numel() == 1 and float(ends.low) == 0 and float(ends.high) == torch.inf
    )


def _ends(call: Call, low: object, high: object) -> Interval | None:
    tensors = [_end(call, low, -torch.inf), _end(call, high, torch.inf)]
    first, second = tensors
    return None if first is None or second is None else Interval(first, second)


def _end(call: Call, value: object, default: float) -> Tensor | None:
    rank = len(call.sizes)
    if isinstance(value, Tensor):
        if value.dim() > rank or len(varying_axes(value)) > 1:
            return None
        return value.double().reshape([1] * (rank - value.dim()) + list(value.shape))
    number = default if value is None else value
    return (
        torch.full([1] * rank, float(number), dtype=torch.float64)
        if isinstance(number, int | float)
        else None
    )


def _clip(call: Call, low: object, high: object) -> Rule | None:
    interval = _ends(call, low, high)
    if interval is None or len(call.values) != 1 or call.input_sizes() != call.sizes:
        return None
    return Clip(call, interval, Affine.identity(len(call.sizes)))


def _fixed(low: float, high: float | None, call: Call) -> Rule | None:
    return _clip(call, low, high)


def _named(low: str | None, high: str | None, call: Call) -> Rule | None:
    ends = [None if name is None else _constant_or_number(call, name) for name in (low, high)]
    if any(isinstance(end, fx.Node) for end in ends):
        return None
    return _clip(call, *ends)


def _constant_or_number(call: Call, name: str) -> object:
    constant = call.constant(name)
    return call.argument(name) if constant is None else constant


def _hardsigmoid(call: Call) -> Rule:
    rank = len(call.sizes)
    before = Affine(
        torch.full([1] * rank, 1 / 6, dtype=torch.float64), torch.full([1] * rank, 0.5, dtype=torch.float64)
    )
    unit = Interval(torch.zeros([1] * rank, dtype=torch.float64), torch.ones([1] * rank, dtype=torch.float64))
    return Clip(call, unit, before)


register(_aten.relu.default)(partial(_fixed, 0.0, None))
register(_aten.relu6.default)(partial(_fixed, 0.0, 6.0))
register(_aten.hardsigmoid.default)(_hardsigmoid)
register(_aten.hardtanh.default)(partial(_named, "min_val", "max_val"))
register(_aten.clamp.default, _aten.clip.default, _aten.clamp.Tensor, _aten.clip.Tensor)(
    partial(_named, "min", "max")
)
register(_aten.clamp_min.default, _aten.clamp_min.Tensor)(partial(_named, "min", None))
register(_aten.clamp_max.default, _aten.clamp_max.Tensor)(partial(_named, None, "max"))


@register(_aten.maximum.default, _aten.minimum.default)
def _extremum(call: Call) -> Rule | None:
    constants = [call.constant(name) for name in ("self", "other")]
    if len(call.values) != 1:
        return larger(call)
    end = next(constant for constant in constants if constant is not None)
    return _clip(call, end, None) if call.operator.target is _aten.maximum.default else _clip(call, None, end)


@register(_aten.threshold.default)
def _threshold(call: Call) -> Rule | None:
    # x > θ ? x : v is a clip only where v = θ.
    threshold, value = call.argument("threshold"), call.argument("value")
    return _clip(call, threshold, None) if threshold == value else None
