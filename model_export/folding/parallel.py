"""Parallel linear branches of one value as one layer.

::

    s₁·(W₁∗x + b₁) + t₁ + s₂·(W₂∗x + b₂) + t₂ = (s₁·W₁ + s₂·W₂)∗x + …
    x is the layer whose kernel is 1 at its centre; a small kernel is a large one with zeros around it

RepVGG's three branches, ``x + conv(x)`` and ``BN(z) + z`` are all of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import Tensor

from model_export.folding.algebra import Affine, compressed, embed_kernel, spread_groups, varying_axes
from model_export.folding.rules.linear import Kernel


@dataclass(frozen=True, eq=False)
class Term:
    """One branch: a layer (None: the identity), and the affine map of its result."""

    kernel: Kernel | None
    after: Affine


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far a kernel reaches from its own position, along each spatial axis, in steps of its dilation."""

    before: tuple[int, ...]
    behind: tuple[int, ...]


def merged_kernel(terms: Sequence[Term]) -> Kernel | None:
    """One kernel for the sum of all terms; None if their geometries do not agree."""
    kernels = [term.kernel for term in terms if term.kernel is not None]
    first = kernels[0]
    if any(kernel.transposed or kernel.target is not first.target for kernel in kernels):
        return None
    if any(
        not varying_axes(compressed(part)) <= {_axis(term, first)} for term in terms for part in _parts(term)
    ):
        return None
    if first.axis == 1:
        return _merged(terms, first, None, 1, ())
    return _merged_convolution(terms, kernels)


def _parts(term: Term) -> tuple[Tensor, Tensor]:
    return term.after.scale, term.after.shift


def _axis(term: Term, kernel: Kernel) -> int:
    return term.after.scale.dim() - kernel.axis


def _merged_convolution(terms: Sequence[Term], kernels: Sequence[Kernel]) -> Kernel | None:
    if any(isinstance(kernel.options[1], str) for kernel in kernels):
        return None
    reaches = [_reach(kernel) for kernel in kernels]
    strides = {_per_axis(kernel, 0) for kernel in kernels}
    wide = {_per_axis(k, 2) for k, r in zip(kernels, reaches, strict=True) if _size(r) > 1}
    if len(strides) > 1 or len(wide) > 1 or None in reaches:
        return None
    stride, dilation = strides.pop(), wide.pop() if wide else _per_axis(kernels[0], 2)
    has_identity = any(term.kernel is None for term in terms)
    if has_identity and (set(stride) != {1} or kernels[0].channels[0] != kernels[0].channels[1]):
        return None
    found = [reach for reach in reaches if reach is not None]
    axes = range(len(stride))
    union = _Reach(
        tuple(max(reach.before[axis] for reach in found) for axis in axes),
        tuple(max(reach.behind[axis] for reach in found) for axis in axes),
    )
    # torch pads evenly: reach as far behind as before.
    if union.before != union.behind:
        return None
    groups = gcd(*(kernel.groups for kernel in kernels))
    padding = tuple(size * step for size, step in zip(union.before, dilation, strict=True))
    options = (list(stride), list(padding), list(dilation), groups)
    return _merged(terms, kernels[0], union, groups, options)


def _size(reach: _Reach | None) -> int:
    return 0 if reach is None else max(*reach.before, *reach.behind, 0) + 1


def _per_axis(kernel: Kernel, option: int) -> tuple[int, ...]:
    value = kernel.options[option]
    spatial = kernel.axis - 1
    listed = list(value) if isinstance(value, list | tuple) else [value]
    sizes = [int(str(size)) for size in listed]
    return tuple(sizes * spatial if len(sizes) == 1 else sizes)


def _reach(kernel: Kernel) -> _Reach | None:
    """None if the padding is no multiple of the dilation: the kernel has no tap on its own position."""
    sizes = kernel.weight().shape[2:]
    padding, dilation = _per_axis(kernel, 1), _per_axis(kernel, 2)
    before = [pad // step for pad, step in zip(padding, dilation, strict=True)]
    if any(pad % step for pad, step in zip(padding, dilation, strict=True)):
        return None
    behind = tuple(size - 1 - reach for size, reach in zip(sizes, before, strict=True))
    return None if min(behind, default=0) < 0 else _Reach(tuple(before), behind)


def _merged(
    terms: Sequence[Term], first: Kernel, union: _Reach | None, groups: int, options: tuple[object, ...]
) -> Kernel:
    def weight() -> Tensor:
        return torch.stack([_weight(term, first, union, groups) for term in terms]).sum(0)

    def bias() -> Tensor:
        return torch.stack([_bias(term, first) for term in terms]).sum(0)

    is_local = union is None or max(union.before, default=0) == 0
    return replace(first, weight=weight, bias=bias, groups=groups, options=options, is_local=is_local)


def _weight(term: Term, first: Kernel, union: _Reach | None, groups: int) -> Tensor:
    scale = compressed(term.after.scale).reshape(-1)
    if term.kernel is None:
        inputs = first.channels[0]
        eye = torch.eye(inputs, dtype=torch.float64)
        spatial = first.axis - 1
        # One group a channel is the identity's own shape; then as many groups as the others have.
        weight = spread_groups(torch.ones(inputs, 1, *[1] * spatial, dtype=torch.float64), inputs, groups)
        weight = weight if spatial else eye
        reach = _Reach((0,) * spatial, (0,) * spatial)
    else:
        weight = spread_groups(term.kernel.weight(), term.kernel.groups, groups)
        found = _reach(term.kernel) if union is not None else None
        reach = found or _Reach((), ())
    if union is not None:
        before = [wide - own for wide, own in zip(union.before, reach.before, strict=True)]
        behind = [wide - own for wide, own in zip(union.behind, reach.behind, strict=True)]
        weight = embed_kernel(weight, before, behind)
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def _bias(term: Term, first: Kernel) -> Tensor:
    scale, shift = (compressed(part).reshape(-1) for part in _parts(term))
    own = torch.zeros(first.channels[1], dtype=torch.float64)
    if term.kernel is not None and term.kernel.bias is not None:
        own = term.kernel.bias()
    return own * scale + shift
