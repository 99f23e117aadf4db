"""What stays of a BatchNorm, written as the operator that ONNX Runtime runs fastest.

A folded program holds plain arithmetic. ONNX Runtime's CPU provider keeps convolutions in a blocked
layout (NCHWc) and leaves it for Mul, Add, Max and Min, which costs two reorders; a BatchNormalization
it runs inside that layout, as a 1×1 depthwise convolution, with a following ReLU fused::

    Mul(x, a) → Add(·, b)     BatchNormalization(x; scale a, shift b, mean 0, variance 1, ε 0)
    Mul(x, a)                 … shift 0
    Add(x, b), Sub(x, b)      … scale 1

where a and b are constants with one value a channel of x [N, C, H, W]. With variance 1 and ε 0 the
operator computes a·x + b and nothing else, so this is exact.

Also tidied, because every node costs a microsecond for a single picture, and the wrong one a layout::

    clamp(x, L, H)                    Max and Min with casts of their constants → Relu where it is one,
                                      else without the casts and without an end that is infinite
    Reshape(x, [N, 3136])             the batch size is not computed: [-1, 3136]
    ReduceMean over H and W           GlobalAveragePool, which stays in the blocked layout
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

from model_export.export.serving import constant, only_reader

_PICTURE_RANK = 4  # N, C, H, W: what the blocked layout is for


@dataclass(frozen=True, slots=True)
class _Affine:
    """scale · source + shift, one value a channel, ending in ``result``."""

    source: ir.Value
    result: ir.Value
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def lower(network: ir.Model) -> int:
    """Rewrites ``network`` in place.

    Returns:
        How many affine maps became a BatchNormalization.
    """
    graph = network.graph
    _fix_reshape_targets(graph)
    fold_constants(network)  # of shapes and axes; it knows nothing of layers
    for node in list(graph):
        if node.op_type == "CastLike":
            _drop_cast(node)
        elif node.op_type in ("Max", "Min"):
            _simplify_clamp(graph, node)
        elif node.op_type == "ReduceMean":
            _pool_globally(graph, node)
    lowered = _lower_affine_maps(graph)
    RemoveUnusedNodesPass()(network)
    return lowered


def _lower_affine_maps(graph: ir.Graph) -> int:
    lowered = 0
    for node in list(graph):
        affine = _affine_map(node)
        if affine is not None:
            _replace(graph, node, affine, lowered)
            lowered += 1
    return lowered


def _affine_map(node: ir.Node) -> _Affine | None:
    """The whole map that ends at ``node``, unless a later node continues it."""
    step = _step(node)
    if step is None or step.source.shape is None or len(step.source.shape) != _PICTURE_RANK:
        return None
    if node.op_type == "Mul" and _continues(node.outputs[0]):
        return None  # counted at its Add
    producer = step.source.producer()
    if node.op_type == "Mul" or producer is None or producer.op_type != "Mul":
        return step
    before = _step(producer)
    if before is None or only_reader(step.source) is None:
        return step
    return _Affine(before.source, step.result, before.scale, step.shift)


def _continues(value: ir.Value) -> bool:
    reader = only_reader(value)
    return reader is not None and reader.op_type in ("Add", "Sub") and _step(reader) is not None


def _step(node: ir.Node) -> _Affine | None:
    """``node`` alone as an affine map: a Mul, Add or Sub by one constant a channel."""
    if node.op_type not in ("Mul", "Add", "Sub"):
        return None
    left, right = node.inputs
    if left is None or right is None:
        return None
    if node.op_type != "Sub" and right.const_value is None:
        left, right = right, left
    numbers = _channel_numbers(right, left)
    if numbers is None:
        return None
    result = node.outputs[0]
    if node.op_type == "Mul":
        return _Affine(left, result, numbers, np.zeros_like(numbers))
    return _Affine(left, result, np.ones_like(numbers), -numbers if node.op_type == "Sub" else numbers)


def _channel_numbers(operand: ir.Value, value: ir.Value) -> NDArray[np.float32] | None:
    """The constant ``operand`` as one float32 a channel of ``value``, where it broadcasts so."""
    if operand.const_value is None or value.const_value is not None or value.shape is None:
        return None
    channels = value.shape[1] if len(value.shape) == _PICTURE_RANK else None
    numbers = operand.const_value.numpy()
    if not isinstance(channels, int) or numbers.dtype != np.float32 or numbers.ndim > _PICTURE_RANK:
        return None
    aligned = numbers.reshape((1,) * (_PICTURE_RANK - numbers.ndim) + numbers.shape)
    if aligned.shape not in ((1, channels, 1, 1), (1, 1, 1, 1)):
        return None
    return np.broadcast_to(aligned.reshape(-1), (channels,)).copy()


def _replace(graph: ir.Graph, node: ir.Node, affine: _Affine, position: int) -> None:
    zeros, ones = np.zeros_like(affine.scale), np.ones_like(affine.scale)
    parameters = {"scale": affine.scale, "shift": affine.shift, "mean": zeros, "variance": ones}
    operands = [constant(graph, f"affine{position}.{name}", numbers) for name, numbers in parameters.items()]
    batch_norm = ir.node(
        "BatchNormalization", [affine.source, *operands], {"epsilon": 0.0}, name=f"{node.name}.affine"
    )
    _replace_node(graph, node, batch_norm)


def _drop_cast(node: ir.Node) -> None:
    """A cast to the type that the value has already."""
    value, like = node.inputs
    if value is not None and like is not None and value.dtype is not None and value.dtype == like.dtype:
        node.outputs[0].replace_all_uses_with(value)


def _simplify_clamp(graph: ir.Graph, node: ir.Node) -> None:
    """Max(x, −∞) and Min(x, +∞) are x; Max(x, 0) is a ReLU."""
    if len(node.inputs) != 2:
        return
    constants = [value for value in node.inputs if value is not None and value.const_value is not None]
    values = [value for value in node.inputs if value is not None and value.const_value is None]
    if len(constants) != 1 or len(values) != 1 or constants[0].const_value is None:
        return
    numbers = constants[0].const_value.numpy()
    if not _broadcasts_away(constants[0], values[0]):
        return
    node.outputs[0].shape, node.outputs[0].type = values[0].shape, values[0].type  # for the other end
    if np.all(numbers == (-np.inf if node.op_type == "Max" else np.inf)):
        node.outputs[0].replace_all_uses_with(values[0], replace_graph_outputs=True)
    elif node.op_type == "Max" and not numbers.any():
        _replace_node(graph, node, ir.node("Relu", [values[0]], name=node.name))


def _broadcasts_away(operand: ir.Value, value: ir.Value) -> bool:
    """Whether combining the two has the shape of ``value``."""
    if operand.shape is None or value.shape is None or len(operand.shape) > len(value.shape):
        return False
    aligned = zip(reversed(tuple(operand.shape)), reversed(tuple(value.shape)), strict=False)
    return all(size in (1, other) for size, other in aligned)


def _pool_globally(graph: ir.Graph, node: ir.Node) -> None:
    value, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or value.shape is None or len(value.shape) != _PICTURE_RANK or axes is None:
        return
    if axes.const_value is None or {int(axis) % _PICTURE_RANK for axis in axes.const_value.numpy()} != {2, 3}:
        return
    pool = ir.node("GlobalAveragePool", [value], name=node.name)
    keeps = node.attributes.get("keepdims")
    if keeps is None or keeps.as_int() == 1:
        _replace_node(graph, node, pool)
    else:
        graph.insert_before(node, pool)
        _replace_node(graph, node, ir.node("Flatten", pool.outputs, name=f"{node.name}.flatten"))


def _replace_node(graph: ir.Graph, node: ir.Node, replacement: ir.Node) -> None:
    """Puts ``replacement`` in the place of ``node``; values keep their names."""
    old, new = node.outputs[0], replacement.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}.replaced"
    graph.insert_before(node, replacement)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _fix_reshape_targets(graph: ir.Graph) -> None:
    for position, node in enumerate(list(graph)):
        if node.op_type != "Reshape" or node.inputs[1] is None:
            continue
        target = _target_shape(node.inputs[1])
        if target is not None:
            node.replace_input_with(1, constant(graph, f"reshape{position}.target", target))


def _target_shape(value: ir.Value) -> NDArray[np.int64] | None:
    """The target with its one computed dimension as −1; None where it is constant or has several.

    ``Concat(Reshape(Squeeze(Shape(x))), [3136])`` is how the exporter writes [N, 3136].
    """
    producer = value.producer()
    if producer is None or producer.op_type != "Concat":
        return None
    parts = [_whole_numbers(part) for part in producer.inputs]
    if sum(part is None for part in parts) != 1:
        return None
    target = np.concatenate([np.asarray([-1]) if part is None else part for part in parts])
    return target.astype(np.int64) if np.count_nonzero(target == -1) == 1 and target.all() else None


def _whole_numbers(value: ir.Value | None) -> NDArray[np.int64] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.atleast_1d(tensor.numpy()).astype(np.int64)
