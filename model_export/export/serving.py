"""The served graph: pixels in, logits and probabilities out.

::

    images uint8 [batch, H, W, C]
      Reshape (C = 1) or Transpose      still one byte a pixel, so this is cheap
      Cast → Sub 255·mean               zero stays the network's own zero, so padding is not touched
      [Mul 1/(255·std)]                 only where no convolution can take it into its weights
      network                           first weights × 1/(255·std), computed in float64
      ──▶ logits ── Softmax | Sigmoid ──▶ probabilities      float32 [batch, K]

With x the pixel: (x/255 − m)/s = (x − 255·m) · 1/(255·s), and a convolution without bias is
homogeneous: W·(a·z) = (W·a)·z. The borders of a padded convolution stay exact because the shift is
done before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.errors import ModelError
from service.artifact import INPUT_NAME, LOGITS_NAME, PROBABILITIES_NAME, InputContract, Task

BATCH = "batch"  # the name of the dynamic dimension


def served_graph(network: ir.Model, contract: InputContract, task: Task, classes: int) -> ir.Model:
    """``network``, modified: uint8 pixels in front, named logits and probabilities behind.

    Args:
        network: Its only input is float [batch, C, H, W], normalised; its only output the logits.
        contract: Size, mean and std.
        task: Softmax or sigmoid.
        classes: K, written into the output shapes.

    Raises:
        ModelError: The input's shape is not what the contract says.
    """
    _check_input(network.graph, contract)
    _put_pixels_in_front(network.graph, contract)
    _put_probabilities_behind(network.graph, task, classes)
    network.graph.name = "foldserve"
    network.producer_name = "foldserve"
    return network


def _check_input(graph: ir.Graph, contract: InputContract) -> None:
    expected = (contract.channels, contract.height, contract.width)
    shape = graph.inputs[0].shape
    if shape is not None and tuple(shape)[1:] != expected:
        raise ModelError(f"the network takes {list(shape)} pictures, the data set has [batch, {expected}]")


def _put_pixels_in_front(graph: ir.Graph, contract: InputContract) -> None:
    images = ir.Value(
        name=INPUT_NAME,
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape([BATCH, contract.height, contract.width, contract.channels]),
    )
    normalised = graph.inputs[0]
    scale = 1 / (255 * np.asarray(contract.std, dtype=np.float64))
    centre = 255 * np.asarray(contract.mean, dtype=np.float64)
    is_absorbed = _scale_first_weights(normalised, scale)
    nodes = [_channels_first(graph, images, contract)]
    nodes.append(ir.node("Cast", nodes[-1].outputs, {"to": ir.DataType.FLOAT}, name="normalise/cast"))
    if centre.any():
        nodes.append(_per_channel(graph, "Sub", nodes[-1].outputs[0], "mean", centre))
    if not is_absorbed and not np.all(scale == 1):
        nodes.append(_per_channel(graph, "Mul", nodes[-1].outputs[0], "scale", scale))
    graph.inputs[0] = images
    normalised.replace_all_uses_with(nodes[-1].outputs[0])
    first = next(iter(graph), None)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)


def _channels_first(graph: ir.Graph, images: ir.Value, contract: InputContract) -> ir.Node:
    if contract.channels == 1:
        # The same bytes in the same order: nothing is moved.
        shape = np.asarray([-1, 1, contract.height, contract.width], dtype=np.int64)
        target = constant(graph, "normalise.shape", shape)
        return ir.node("Reshape", [images, target], name="normalise/channels_first")
    return ir.node("Transpose", [images], {"perm": [0, 3, 1, 2]}, name="normalise/channels_first")


def _per_channel(
    graph: ir.Graph, operator: str, value: ir.Value, what: str, numbers: NDArray[np.float64]
) -> ir.Node:
    operand = constant(graph, f"normalise.{what}", numbers.astype(np.float32).reshape(1, -1, 1, 1))
    return ir.node(operator, [value, operand], name=f"normalise/{what}")


def _scale_first_weights(value: ir.Value, scale: NDArray[np.float64]) -> bool:
    """Multiplies the weights that meet ``value`` first by ``scale``; False where that is not exact.

    Exact for a convolution over all input channels that alone reads the value and alone its weights.
    """
    node = only_reader(value)
    if node is None or node.op_type != "Conv" or _integer(node, "group", 1) != 1:
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or len(weight.uses()) != 1:
        return False
    numbers = weight.const_value.numpy()
    scaled = (numbers.astype(np.float64) * scale.reshape(1, -1, 1, 1)).astype(numbers.dtype)
    weight.const_value = ir.tensor(scaled, name=weight.name)
    return True


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _put_probabilities_behind(graph: ir.Graph, task: Task, classes: int) -> None:
    logits = graph.outputs[0]
    logits.name = LOGITS_NAME
    if task is Task.MULTICLASS:
        node = ir.node("Softmax", [logits], {"axis": -1}, name=PROBABILITIES_NAME)
    else:
        node = ir.node("Sigmoid", [logits], name=PROBABILITIES_NAME)
    probabilities = node.outputs[0]
    probabilities.name = PROBABILITIES_NAME
    graph.append(node)
    graph.outputs.append(probabilities)
    _declare([logits, probabilities], classes)


def _declare(outputs: Sequence[ir.Value], classes: int) -> None:
    for output in outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape([BATCH, classes])


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``; None where others do too, or the graph's caller."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def constant(graph: ir.Graph, name: str, numbers: NDArray[np.generic]) -> ir.Value:
    """A new initializer of ``graph``."""
    value = ir.Value(name=name, const_value=ir.tensor(numbers, name=name))
    value.type = ir.TensorType(ir.DataType.from_numpy(numbers.dtype))
    value.shape = ir.Shape(numbers.shape)
    graph.register_initializer(value)
    return value
