"""Linear layers: they take any per-channel map into their weights, on either side.

::

    y = W∗z + b,   z = s·z′ + t,   y′ = p·y + q
    y′ = (p·W·s)∗z′ + p·(b + W∗t) + q

``W∗t`` is one number a channel where nothing is padded with zeros: a bias. Else it is smaller at the border,
and is added as one constant map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx

from model_export.folding import algebra
from model_export.folding.algebra import Affine, along, compressed, varying_axes
from model_export.folding.rules.call import Call
from model_export.folding.rules.rule import (
    FREE,
    Absorber,
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
# Elements of a weight that are folded at a time: 2 MB in float64.
_PIECE = 1 << 18


@dataclass(frozen=True, eq=False)
class Kernel:
    """The weights of a linear layer and how they are applied.

    Attributes:
        target: The operator that applies them: ``target(x, weight, bias, *options)``.
        weight: [O, I/groups, k…], transposed [I, O/groups, k…], Linear [O, I]; in its own precision or in
            float64, for whoever uses it to widen.
        bias: [O] float64; None: none.
        channels: I and O.
        axis: The channel axis of input and output, counted from the back.
        groups: Of a convolution.
        transposed: Whether input channels come first in the weight.
        options: Further arguments of the operator.
        is_local: Whether each output position reads its own input position alone.
    """

    target: Callable[..., Tensor]
    weight: Callable[[], Tensor]
    bias: Callable[[], Tensor] | None
    channels: tuple[int, int]
    axis: int
    groups: int = 1
    transposed: bool = False
    options: tuple[object, ...] = ()
    is_local: bool = True

    def apply(self, value: Tensor, weight: Tensor) -> Tensor:
        """``W∗value``, without the bias."""
        return self.target(value, weight.double(), None, *self.options)

    def folded(self, scale: Tensor, outer: Tensor, dtype: torch.dtype) -> Tensor:
        """p·W·s, worked out in float64 and rounded once.

        A few rows at a time: the float64 product of a whole weight is twice the weight in size.

        Args:
            scale: s, [I] or [1]; float64.
            outer: p, [O] or [1]; float64.
            dtype: Of the result.
        """
        weight = self.weight()
        result = torch.empty(weight.shape, dtype=dtype)
        factors = (self._input_factors(weight, scale), self._output_factors(weight, outer))
        whole = (result, weight, *(factor.expand(len(weight), *factor.shape[1:]) for factor in factors))
        rows = max(1, _PIECE * len(weight) // weight.numel())
        for part, of_weight, inner, of_outer in zip(*(torch.split(one, rows) for one in whole), strict=True):
            part.copy_(of_weight * (inner * of_outer))
        return result

    def _input_factors(self, weight: Tensor, scale: Tensor) -> Tensor:
        return algebra.input_factors(scale, weight.shape, transposed=self.transposed, groups=self.groups)

    def _output_factors(self, weight: Tensor, scale: Tensor) -> Tensor:
        return algebra.output_factors(scale, weight.shape, transposed=self.transposed, groups=self.groups)

    def summed(self, shift: Tensor) -> tuple[Tensor, tuple[object, ...]]:
        """W·t over the input channels, [O, 1, k…] (transposed [1, O, k…]), and the options it goes with."""
        weight = self.weight()
        weight = weight * self._input_factors(weight, shift)
        if not self.transposed:
            return weight.sum(1, keepdim=True), self._ungrouped()
        blocks = weight.reshape(self.groups, -1, *weight.shape[1:]).sum(1)  # [g, O/g, k…]
        return blocks.reshape(1, -1, *weight.shape[2:]), self._ungrouped()

    def _ungrouped(self) -> tuple[object, ...]:
        options = list(self.options)
        if self.groups > 1:
            options[-2 if self.transposed else -1] = 1
        return tuple(options)


class Linear(Absorber):
    """A linear layer with a constant kernel."""

    def __init__(self, call: Call, kernel: Kernel) -> None:
        super().__init__(call)
        self.kernel = kernel
        self._border: dict[bytes, Tensor] = {}

    @property
    def _axis(self) -> int:
        return len(self.call.sizes) - self.kernel.axis

    @property
    def _input_axis(self) -> int:
        return len(self.call.input_sizes()) - self.kernel.axis

    def read(self, index: int, stored: Stored) -> Cost | None:
        """Free where only the channels differ; a shift under zero padding leaves a constant map."""
        reading = stored.reading()
        if reading is None or not varying_axes(compressed(reading.scale)) <= {self._input_axis}:
            return None
        shift = compressed(reading.shift)
        if bool((shift == 0).all()):
            return FREE
        others = varying_axes(shift) - {self._input_axis}
        if others & self.call.free_axes(self.call.values[0]):
            return None
        if self.kernel.is_local and not others:
            return FREE
        return (Leftover(Remainder.BORDER, elements(self.call)),)

    def write(self, form: Affine, known: Tensor) -> Cost | None:
        """Free where only the channels differ; a shift that differs over the image is a constant map."""
        if not varying_axes(compressed(form.scale)) <= {self._axis} or bool(form.shift.isnan().any()):
            return None
        others = varying_axes(compressed(form.shift)) - {self._axis}
        if not others:
            return FREE
        # A shift along one other axis alone is an affine map over that axis, not a border.
        if len(others) == 1 or others & self.call.free_axes():
            return None
        return (Leftover(Remainder.BORDER, elements(self.call)),)

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The layer with new weights, and the constant map where one is left."""
        reading = stored[0].reading()
        if reading is None:
            raise ValueError(f"{self.call.node.name} cannot read this form")
        if reading.is_identity and form.is_identity and self.kernel.target is self.call.operator.target:
            return writer.again(self.call, inputs)
        return _Rewriting(self, writer, reading, form).emit(inputs[0])

    def channels_of(self, values: Tensor, axis: int) -> Tensor:
        """[1, C, 1, 1] → [C], or [1] if nothing varies."""
        del axis
        return compressed(values).reshape(-1)


class _Rewriting:
    """One rewrite of a linear layer: the new weight, bias and constant map."""

    def __init__(self, rule: Linear, writer: Writer, reading: Affine, form: Affine) -> None:
        self._rule, self._kernel, self._call, self._writer = rule, rule.kernel, rule.call, writer
        self._scale, self._outer = (compressed(scale).reshape(-1) for scale in (reading.scale, form.scale))
        self._inner_shift, self._outer_shift = compressed(reading.shift), compressed(form.shift)
        self._rank = len(self._call.sizes)
        self._axis = self._rank - self._kernel.axis

    def emit(self, source: fx.Node) -> fx.Node:
        constant = self._constant_map()
        is_map = bool(varying_axes(constant) - {self._axis})
        is_free = self._is_free_border()
        bias = None if is_map else constant
        result = self._layer(source, None if is_free and bias is None else bias)
        if is_free:
            return self._writer.call(self._call, _aten.add.Tensor, result, self._computed_map(source))
        if is_map:
            shift = self._writer.constant(self._call, "map", lambda dtype: self._constant_map().to(dtype))
            return self._writer.call(self._call, _aten.add.Tensor, result, shift)
        return result

    def _layer(self, source: fx.Node, constant: Tensor | None) -> fx.Node:
        folded = partial(self._kernel.folded, self._scale, self._outer)
        weight = self._writer.constant(self._call, "weight", folded)
        bias = None
        if constant is not None and (self._kernel.bias is not None or bool((constant != 0).any())):
            values = constant.reshape(-1).expand(self._kernel.channels[1]).clone()
            bias = self._writer.constant(self._call, "bias", values.to)
        return self._writer.call(self._call, self._kernel.target, source, weight, bias, *self._kernel.options)

    def _is_free_border(self) -> bool:
        """Whether the map's size is only known when the program runs."""
        has_border = bool((self._inner_shift != 0).any()) and not self._kernel.is_local
        return has_border and bool(self._call.free_axes() - {0})

    def _constant_map(self) -> Tensor:
        """p·(b + W∗t) + q, compressed; without W∗t where its size is free."""
        total = self._bias()
        if bool((self._inner_shift != 0).any()) and not self._is_free_border():
            total = total + self._image_of_shift()
        outer = along(self._outer, self._axis, self._rank)
        return compressed(outer * total + self._outer_shift)

    def _bias(self) -> Tensor:
        if self._kernel.bias is None:
            return torch.zeros([1] * self._rank, dtype=torch.float64)
        return along(self._kernel.bias(), self._axis, self._rank)

    def _image_of_shift(self) -> Tensor:
        sizes = list(self._call.input_sizes())
        if 0 not in varying_axes(self._inner_shift) and len(sizes) > self._kernel.axis:
            sizes[0] = 1
        if self._kernel.is_local and not varying_axes(self._inner_shift) - {len(sizes) - self._kernel.axis}:
            sizes = [1] * len(sizes)
            sizes[-self._kernel.axis] = self._kernel.channels[0]
            return self._local_image(self._inner_shift.expand(sizes))
        return self._kernel.apply(self._inner_shift.expand(sizes), self._kernel.weight())

    def _local_image(self, shift: Tensor) -> Tensor:
        """W·t where no border matters: the kernel's taps summed."""
        values = shift.reshape(-1)
        weight, _ = self._kernel.summed(values)
        flat = weight.reshape(*weight.shape[:2], -1).sum(-1).reshape(-1)
        return along(flat, self._axis, self._rank)

    def _computed_map(self, source: fx.Node) -> fx.Node:
        """W∗t over an image of ones of the source's size, computed by the program."""
        writer, call, kernel = self._writer, self._call, self._kernel
        values = self._inner_shift.reshape(-1).expand(kernel.channels[0])

        def weight(dtype: torch.dtype) -> Tensor:
            summed, _ = kernel.summed(values)
            factors = algebra.output_factors(
                self._outer, summed.shape, transposed=kernel.transposed, groups=1
            )
            return (summed * factors).to(dtype)

        _, options = kernel.summed(values)
        axis = len(call.input_sizes()) - kernel.axis
        batch = writer.call(call, _aten.slice.Tensor, source, 0, 0, 1) if axis else source
        channel = writer.call(call, _aten.slice.Tensor, batch, axis, 0, 1)
        ones = writer.call(call, _aten.ones_like.default, channel)
        return writer.call(
            call, kernel.target, ones, writer.constant(call, "map_weight", weight), None, *options
        )


def _convolution(transposed: bool, call: Call) -> Rule | None:
    if len(call.values) != 1 or not (call.is_constant("weight") and call.is_constant("bias")):
        return None
    weight = call.weight("weight")
    if weight is None or call.values[0] is not call.argument("input"):
        return None
    groups = call.argument("groups")
    channels = (
        (weight.shape[0], weight.shape[1] * groups)
        if transposed
        else (weight.shape[1] * groups, weight.shape[0])
    )
    names = ["stride", "padding", "dilation", "groups"]
    if transposed:
        names = ["stride", "padding", "output_padding", "groups", "dilation"]
    options = tuple(call.argument(name) for name in names)
    spatial = weight.dim() - 2
    return Linear(
        call,
        Kernel(
            target=_function(call),
            weight=partial(_weight, call, "weight"),
            bias=partial(_constant, call, "bias") if call.constant("bias") is not None else None,
            channels=channels,
            axis=spatial + 1,
            groups=groups,
            transposed=transposed,
            options=options,
            is_local=not transposed and not _pads(call.argument("padding"), weight),
        ),
    )


def _pads(padding: object, weight: Tensor) -> bool:
    if isinstance(padding, str):
        return padding == "same" and max(weight.shape[2:]) > 1
    sizes = padding if isinstance(padding, list | tuple) else [padding]
    return any(size != 0 for size in sizes)


def _function(call: Call) -> Callable[..., Tensor]:
    target = call.operator.target
    if not callable(target):
        raise TypeError(f"{call.node.name} is no call")
    return target


def _weight(call: Call, name: str, *, transpose: bool = False) -> Tensor:
    value = call.weight(name)
    if value is None:
        raise ValueError(f"{call.node.name}: {name} is no constant")
    return value.t() if transpose else value


def _constant(call: Call, name: str) -> Tensor:
    return _weight(call, name).double()


register(_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default)(partial(_convolution, False))
register(_aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding)(partial(_convolution, False))
register(_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input)(
    partial(_convolution, True)
)


def _matrix(call: Call, source: str, weight: str, bias: str | None, *, transpose: bool) -> Rule | None:
    matrix = call.weight(weight)
    if matrix is None or matrix.dim() != 2 or call.values != (call.argument(source),):
        return None
    shape = matrix.t().shape if transpose else matrix.shape
    offset = None if bias is None else call.constant(bias)
    if offset is not None and offset.shape != shape[:1]:
        return None
    return Linear(
        call,
        Kernel(
            target=_aten.linear.default,
            weight=partial(_weight, call, weight, transpose=transpose),
            bias=None if offset is None else partial(_constant, call, str(bias)),
            channels=(shape[1], shape[0]),
            axis=1,
        ),
    )


@register(_aten.linear.default)
def _linear(call: Call) -> Rule | None:
    return _matrix(call, "input", "weight", "bias", transpose=False)


@register(_aten.matmul.default)
def _matmul(call: Call) -> Rule | None:
    return _matrix(call, "self", "other", None, transpose=True)


@register(_aten.mm.default)
def _mm(call: Call) -> Rule | None:
    return _matrix(call, "self", "mat2", None, transpose=True)


@register(_aten.addmm.default)
def _addmm(call: Call) -> Rule | None:
    if call.argument("alpha") != 1 or call.argument("beta") != 1 or not call.is_constant("self"):
        return None
    return _matrix(call, "mat1", "mat2", "self", transpose=True)
