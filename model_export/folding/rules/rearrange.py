"""Operators that only move values: reshape, permute, slice, concat, shuffle, flip, repeat, copying pads …

Where each result value comes from is found by moving numbered values once, so one rule serves all of them:
a form moves along with its values, and comes back if no value is wanted in two forms.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from model_export.folding.algebra import Affine, compressed, varying_axes
from model_export.folding.rules.call import Call
from model_export.folding.rules.rule import Rearranger, Rule, Stored, register

_aten = torch.ops.aten


class Moved(Rearranger):
    """Each value of the result is a value of one of the inputs."""

    @cached_property
    def _origin(self) -> Tensor:
        """For each result value, its place among all input values, counted through the inputs in order."""
        numbered, start = [], 0
        for sizes in self._sizes:
            stop = start + prod(sizes)
            # float64 holds every index exactly, and every operator takes it.
            numbered.append(torch.arange(start, stop, dtype=torch.float64).reshape(sizes))
            start = stop
        return self.call.run(*numbered).round().long()

    @cached_property
    def _has_all(self) -> bool:
        """Whether every input value is somewhere in the result."""
        total = sum(map(prod, self._sizes))
        if self.call.operator.target in (_aten.view.default, _aten.permute.default, _aten.clone.default):
            return True
        return bool(torch.bincount(self._origin.reshape(-1), minlength=total).all())

    @property
    def _sizes(self) -> list[tuple[int, ...]]:
        return [self.call.input_sizes(index) for index in range(len(self.call.values))]

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """The constants, moved."""
        moved = self._move(inputs)
        return super().known(inputs) if moved is None else moved

    def _move(self, parts: Sequence[Tensor]) -> Tensor | None:
        if all(part.numel() == 1 for part in parts) and _all_same(parts):
            return parts[0].reshape([1] * len(self.call.sizes))
        flat = torch.cat(
            [part.expand(sizes).reshape(-1) for part, sizes in zip(parts, self._sizes, strict=True)]
        )
        moved = compressed(flat[self._origin])
        return None if varying_axes(moved) & self.call.free_axes() else moved

    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The forms, moved."""
        scale = self._move([s.form.scale for s in stored])
        shift = self._move([s.form.shift for s in stored])
        return None if scale is None or shift is None else Affine(scale, shift)

    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The form, moved back; NaN for values that the result does not have."""
        scales, shifts = self._move_back(form.scale), self._move_back(form.shift)
        if scales is not None and shifts is not None:
            yield tuple(Affine(scale, shift) for scale, shift in zip(scales, shifts, strict=True))

    def wishes(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """The form moved back, with its gaps closed where it does not vary; also with one axis's open."""
        for exact in self.backward(form):
            yield tuple(_closed(part, open_axes=set()) for part in exact)
            gaps = [varying_axes(compressed(part.scale.isnan().double())) for part in exact]
            if any(len(axes) == 1 for axes in gaps):
                yield tuple(
                    _closed(part, axes if len(axes) == 1 else set())
                    for part, axes in zip(exact, gaps, strict=True)
                )

    def _move_back(self, values: Tensor) -> list[Tensor] | None:
        if values.numel() == 1 and self._has_all:
            return [values.reshape([1] * len(sizes)) for sizes in self._sizes]
        wanted = values.expand(self.call.sizes)
        flat = torch.full((sum(map(prod, self._sizes)),), torch.nan, dtype=torch.float64)
        flat[self._origin] = wanted
        agreed = (flat[self._origin] == wanted) | wanted.isnan()
        if not bool(agreed.all()):
            return None
        parts = torch.split(flat, [prod(sizes) for sizes in self._sizes])
        back = [compressed(part.reshape(sizes)) for part, sizes in zip(parts, self._sizes, strict=True)]
        free = [self.call.free_axes(value) for value in self.call.values]
        closed = [_compressed_around_gaps(part, set()) for part in back]
        return None if any(varying_axes(c) & f for c, f in zip(closed, free, strict=True)) else back


def _all_same(parts: Sequence[Tensor]) -> bool:
    first = float(parts[0])
    return all(float(part) == first for part in parts) or all(bool(part.isnan()) for part in parts)


def _closed(form: Affine, open_axes: set[int]) -> Affine:
    return Affine(
        _compressed_around_gaps(form.scale, open_axes), _compressed_around_gaps(form.shift, open_axes)
    )


def _compressed_around_gaps(values: Tensor, open_axes: set[int]) -> Tensor:
    """`compressed`, with NaN equal to anything but along the open axes."""
    for axis in range(values.dim()):
        if values.shape[axis] <= 1 or axis in open_axes:
            continue
        gap = values.isnan()
        low = torch.where(gap, torch.inf, values).amin(axis, keepdim=True)
        high = torch.where(gap, -torch.inf, values).amax(axis, keepdim=True)
        if bool((low >= high).all()):
            values = torch.where(low > high, torch.nan, low)  # low > high: gaps only
    return values


@register(
    _aten.view.default,
    _aten.reshape.default,
    _aten._unsafe_view.default,
    _aten.flatten.using_ints,
    _aten.unflatten.int,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.t.default,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
    _aten.expand.default,
    _aten.repeat.default,
    _aten.tile.default,
    _aten.repeat_interleave.self_int,
    _aten.slice.Tensor,
    _aten.select.int,
    _aten.narrow.default,
    _aten.flip.default,
    _aten.roll.default,
    _aten.rot90.default,
    _aten.index_select.default,
    _aten.index.Tensor,
    _aten.pixel_shuffle.default,
    _aten.pixel_unshuffle.default,
    _aten.channel_shuffle.default,
    _aten.native_channel_shuffle.default,
    _aten.clone.default,
    _aten.contiguous.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten.lift_fresh_copy.default,
    _aten.dropout.default,
    _aten.feature_dropout.default,
    _aten.alpha_dropout.default,
    _aten.reflection_pad1d.default,
    _aten.reflection_pad2d.default,
    _aten.reflection_pad3d.default,
    _aten.replication_pad1d.default,
    _aten.replication_pad2d.default,
    _aten.replication_pad3d.default,
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.chunk.default,
    _aten.unbind.int,
    _aten.cat.default,
    _aten.stack.default,
)
def moved(call: Call) -> Rule | None:
    """The rule for an operator that only moves values of one dtype."""
    if not call.values or _draws(call) or not _arguments_are_values_or_constants(call):
        return None
    return Moved(call)


def _draws(call: Call) -> bool:
    """Whether a dropout is really one: in training mode."""
    return call.operator.target in (
        _aten.dropout.default,
        _aten.feature_dropout.default,
        _aten.alpha_dropout.default,
    ) and bool(call.argument("train"))


def _arguments_are_values_or_constants(call: Call) -> bool:
    # A concat with a constant is left alone: the constant has no rule that could write it in another form.
    tensors = [node for node in call.operator.all_input_nodes if isinstance(node.meta.get("val"), Tensor)]
    floating = [node for node in tensors if node.meta["val"].is_floating_point()]
    return set(floating) == set(call.values) and call.operator.target is not operator.getitem
