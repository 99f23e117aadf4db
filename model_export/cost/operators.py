"""What each operator computes: its multiply-adds for one instance, or that it has none.

::

    convolution             output elements · (in channels / groups) · kernel elements
    transposed convolution  input elements · (out channels / groups) · kernel elements
    linear, matmul          output elements · inner size
    einsum of two           product of the sizes of all its indices
    attention               query · key products and weights · value products

All sizes are those of one instance. A program for batches of any size says itself where the batch is, also
where a network merges it with other axes ([N · positions, C]) or moves it; in one that was traced for a
single size of batch it is the first axis.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.fx import Node

Rule = Callable[[Node], int | None]

# They show the same memory in another way, so they cost neither arithmetic nor bytes.
_VIEWS = """
    _unsafe_view alias chunk contiguous detach dropout expand flatten getitem narrow permute reshape
    select slice split split_with_sizes squeeze t transpose unbind unflatten unsqueeze view view_as
"""
VIEWS: Final = frozenset(_VIEWS.split())

# No multiply-adds worth the name: elementwise, pooling, normalisation, reductions, moved data.
_ELEMENTWISE = """
    _adaptive_avg_pool2d _native_batch_norm_legit_no_training _weight_norm abs adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool2d add amax amin arange avg_pool1d avg_pool2d avg_pool3d
    batch_norm bitwise_and bitwise_or cat celu channel_shuffle clamp clamp_max clamp_min clone
    constant_pad_nd copy div elu embedding eq exp full ge gelu group_norm gt hardsigmoid hardswish
    hardtanh instance_norm layer_norm le leaky_relu log log_softmax lt max max_pool1d max_pool2d
    max_pool3d maximum mean min minimum mish mul native_batch_norm ne neg ones ones_like pad
    pixel_shuffle pixel_unshuffle pow prelu relu relu6 repeat roll rsqrt rsub selu sigmoid silu softmax
    softplus sqrt stack sub sum tanh to upsample_bicubic2d upsample_bilinear2d upsample_nearest2d where
    zeros zeros_like
"""
ELEMENTWISE: Final = frozenset(_ELEMENTWISE.split())


def operator_name(node: Node) -> str:
    """``conv2d`` of ``aten.conv2d.default``; the in-place form has the same name."""
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload):
        name = str(node.target._schema.name).removeprefix("aten::")
        return name if name.startswith("_") else name.rstrip("_")
    return str(getattr(node.target, "__name__", node.target))


def macs(node: Node) -> int | None:
    """Multiply-adds of ``node`` for one instance; None: an operator that nobody wrote a rule for."""
    name = operator_name(node)
    if name in _RULES:
        return _RULES[name](node)
    return 0 if name in VIEWS or name in ELEMENTWISE else None


def tensors(node: Node) -> list[Tensor]:
    """The tensors that ``node`` makes, as shapes without data."""
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else (value,)
    return [each for each in values if isinstance(each, Tensor)]


def instance_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of what belongs to one instance, without the axis of the batch."""
    sizes = tuple(of_one(size) for size in tensor.shape)
    has_batch_first = not any(isinstance(size, torch.SymInt) for size in tensor.shape) or sizes[0] == 1
    return sizes[1:] if has_batch_first else sizes


def of_one(size: int | torch.SymInt) -> int:
    """A size for a batch of one."""
    if not isinstance(size, torch.SymInt):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def instance_elements(tensor: Tensor) -> int:
    """Elements of ``tensor`` that belong to one instance."""
    return math.prod(instance_shape(tensor))


def instance_bytes(tensor: Tensor) -> int:
    """Bytes of ``tensor`` that belong to one instance."""
    return instance_elements(tensor) * tensor.element_size()


def _argument(node: Node, position: int) -> Tensor:
    source = node.args[position]
    if not isinstance(source, Node):
        raise TypeError(f"{node.name}: argument {position} is no tensor")
    return tensors(source)[0]


def _convolution(node: Node) -> int:
    weight = _argument(node, 1)  # [O, I / groups, kernel…]
    return instance_elements(tensors(node)[0]) * math.prod(weight.shape[1:])


def _general_convolution(node: Node) -> int:
    is_transposed = bool(
        node.args[6]
    )  # convolution(input, weight, bias, stride, padding, dilation, transposed…
    return _transposed_convolution(node) if is_transposed else _convolution(node)


def _transposed_convolution(node: Node) -> int:
    weight = _argument(node, 1)  # [I, O / groups, kernel…]
    return instance_elements(_argument(node, 0)) * math.prod(weight.shape[1:])


def _product(node: Node) -> int:
    """``linear``, ``matmul``, ``mm``, ``bmm``: the first operand's last axis is summed over."""
    return instance_elements(tensors(node)[0]) * of_one(_argument(node, 0).shape[-1])


def _added_product(node: Node) -> int:
    """``addmm(bias, a, b)``."""
    return instance_elements(tensors(node)[0]) * of_one(_argument(node, 1).shape[-1])


def _attention(node: Node) -> int:
    query, key, value = (_argument(node, position) for position in range(3))  # [N, heads, length, width]
    queries = instance_elements(query) // int(query.shape[-1])
    return queries * of_one(key.shape[-2]) * (int(query.shape[-1]) + int(value.shape[-1]))


def _einsum(node: Node) -> int | None:
    """``einsum("nd,kd->nk", [a, b])``: every combination of all indices is one multiply-add."""
    equation, operands = node.args[0], node.args[1]
    if not isinstance(equation, str) or not isinstance(operands, list | tuple) or "." in equation:
        return None
    indices = equation.replace(" ", "").split("->")[0].split(",")
    if len(indices) != len(operands) or len(operands) != 2:
        return None
    shapes = [tensors(each)[0].shape for each in operands if isinstance(each, Node)]
    sizes = {
        index: of_one(size)
        for names, shape in zip(indices, shapes, strict=True)
        for index, size in zip(names, shape, strict=True)
    }
    return math.prod(sizes.values())


_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "conv1d": _convolution,
        "conv2d": _convolution,
        "conv3d": _convolution,
        "convolution": _general_convolution,
        "conv_transpose1d": _transposed_convolution,
        "conv_transpose2d": _transposed_convolution,
        "conv_transpose3d": _transposed_convolution,
        "linear": _product,
        "matmul": _product,
        "mm": _product,
        "bmm": _product,
        "addmm": _added_product,
        "einsum": _einsum,
        "scaled_dot_product_attention": _attention,
    }
)
