"""Every spelling of an affine map with constants: what a BatchNorm is to this package.

::

    batch_norm, instance_norm with running statistics      s·z + t
    z·c, c·z, z/c, −z                                      c·z
    z + c, z − c, c − z, with alpha                        z + c
    addcmul(c, z, d)                                       d·z + c

The constants may differ along one axis (the channels, wherever they are) or be plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from model_export.folding.algebra import Affine, along, batch_norm, compressed, varying_axes
from model_export.folding.rules.call import Call

_aten = torch.ops.aten
Spelling = Callable[[Call], Affine | None]
_SPELLINGS: dict[object, Spelling] = {}

NORMALIZATIONS = (_aten._native_batch_norm_legit_no_training.default, _aten.instance_norm.default)


def affine_map(call: Call, *, finer: bool = False) -> Affine | None:
    """The call as an affine map of its only value; None if it is none.

    Args:
        call: Any call.
        finer: Also a map that differs along more than one axis.
    """
    spelling = _SPELLINGS.get(call.operator.target)
    if spelling is None or len(call.values) != 1 or call.input_sizes() != call.sizes:
        return None
    source = call.values[0].meta.get("val")
    if not isinstance(source, Tensor) or source.dtype != call.dtype or not source.is_floating_point():
        return None
    affine = spelling(call)
    if affine is None or finer:
        return affine
    return None if len(varying_axes(affine.scale, affine.shift)) > 1 else affine


def _spells(*targets: object) -> Callable[[Spelling], Spelling]:
    def enter(spelling: Spelling) -> Spelling:
        _SPELLINGS.update(dict.fromkeys(targets, spelling))
        return spelling

    return enter


def _normalization(names: tuple[str, str], call: Call) -> Affine | None:
    mean, variance = (call.constant(name) for name in names)
    weight, bias = call.constant("weight"), call.constant("bias")
    if mean is None or variance is None or not (call.is_constant("weight") and call.is_constant("bias")):
        return None
    scale, shift = batch_norm(weight, bias, mean, variance, call.argument("eps"))
    rank = len(call.sizes)
    axis = 1 if rank > 1 else 0
    return Affine(along(scale, axis, rank), along(shift, axis, rank))


_spells(_aten._native_batch_norm_legit_no_training.default)(
    partial(_normalization, ("running_mean", "running_var"))
)


@_spells(_aten.instance_norm.default)
def _instance_norm(call: Call) -> Affine | None:
    if call.argument("use_input_stats"):
        return None
    return _normalization(("running_mean", "running_var"), call)


def _number(call: Call, name: str) -> Tensor | None:
    """A number or constant tensor with the rank of the result."""
    argument, rank = call.argument(name), len(call.sizes)
    constant = call.constant(name)
    if constant is None:
        if not isinstance(argument, int | float):
            return None
        constant = torch.tensor(float(argument), dtype=torch.float64)
    if constant.dim() > rank:
        return None
    return compressed(constant.double().reshape([1] * (rank - constant.dim()) + list(constant.shape)))


def _affine(scale: Tensor | float, shift: Tensor | float, call: Call) -> Affine:
    rank = len(call.sizes)
    scale, shift = (
        part if isinstance(part, Tensor) else torch.full([1] * rank, part, dtype=torch.float64)
        for part in (scale, shift)
    )
    return Affine(scale, shift)


@_spells(_aten.mul.Tensor, _aten.mul.Scalar)
def _product(call: Call) -> Affine | None:
    number = _number(call, "other") if call.values[0] is call.argument("self") else _number(call, "self")
    return None if number is None else _affine(number, 0.0, call)


@_spells(_aten.div.Tensor, _aten.div.Scalar, _aten.true_divide.Tensor, _aten.true_divide.Scalar)
def _quotient(call: Call) -> Affine | None:
    number = _number(call, "other")
    if number is None or bool((number == 0).any()):
        return None
    return _affine(1 / number, 0.0, call)


def _sum(sign: float, call: Call) -> Affine | None:
    alpha = call.argument("alpha")
    if not isinstance(alpha, int | float):
        return None
    if call.values[0] is call.argument("self"):
        number = _number(call, "other")
        return None if number is None else _affine(1.0, sign * alpha * number, call)
    number = _number(call, "self")
    return None if number is None else _affine(sign * alpha, number, call)


_spells(_aten.add.Tensor, _aten.add.Scalar)(partial(_sum, 1.0))
_spells(_aten.sub.Tensor, _aten.sub.Scalar)(partial(_sum, -1.0))


@_spells(_aten.rsub.Tensor, _aten.rsub.Scalar)
def _reversed_difference(call: Call) -> Affine | None:
    number, alpha = _number(call, "other"), call.argument("alpha")
    if number is None or call.values[0] is not call.argument("self") or not isinstance(alpha, int | float):
        return None
    return _affine(-float(alpha), number, call)


@_spells(_aten.neg.default)
def _negative(call: Call) -> Affine:
    return _affine(-1.0, 0.0, call)


@_spells(_aten.addcmul.default)
def _product_and_sum(call: Call) -> Affine | None:
    value = call.argument("value")
    parts = {name: _number(call, name) for name in ("self", "tensor1", "tensor2") if call.is_constant(name)}
    shift, factors = parts.get("self"), [parts[name] for name in ("tensor1", "tensor2") if name in parts]
    if shift is None or len(factors) != 1 or factors[0] is None or not isinstance(value, int | float):
        return None
    return _affine(value * factors[0], shift, call)
