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

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.errors import ModelError
from service.artifact import INPUT_NAME, LOGITS_NAME, PROBABILITIES_NAME, InputContract, Task

BATCH = "batch"  # the name of the dynamic dimension


class Layout(StrEnum):
    """How a network wants its pictures."""

    CHANNELS_FIRST = "channels_first"  # [N, C, H, W]
    CHANNELS_LAST = "channels_last"  # [N, H, W, C]
    FLAT = "flat"  # [N, H · W · C], channels last


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
    put_pixels_in_front(network.graph, contract, Layout.CHANNELS_FIRST)
    put_probabilities_behind(network.graph, task)
    finish(network, classes)
    return network


def finish(network: ir.Model, classes: int) -> None:
    """Declares the two outputs, and who made the graph; the batch has one name everywhere."""
    for node in network.graph:
        for value in node.outputs:
            if value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int):
                value.shape = ir.Shape([BATCH, *tuple(value.shape)[1:]])
    for output in network.graph.outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape([BATCH, classes])
    network.graph.name = "foldserve"
    network.producer_name = "foldserve"


def _check_input(graph: ir.Graph, contract: InputContract) -> None:
    expected = (contract.channels, contract.height, contract.width)
    shape = graph.inputs[0].shape
    if shape is not None and tuple(shape)[1:] != expected:
        raise ModelError(f"the network takes {list(shape)} pictures, the data set has [batch, {expected}]")


def put_pixels_in_front(graph: ir.Graph, contract: InputContract, layout: Layout) -> None:
    """Replaces the only input by uint8 ``images``, normalised as ``contract`` says.

    Args:
        graph: Its only input wants normalised pictures of any float type. Modified.
        contract: Size, mean and std.
        layout: Of the graph's own input.
    """
    images = ir.Value(
        name=INPUT_NAME,
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape([BATCH, contract.height, contract.width, contract.channels]),
    )
    normalised = graph.inputs[0]
    scale = 1 / (255 * np.asarray(contract.std, dtype=np.float64))
    centre = 255 * np.asarray(contract.mean, dtype=np.float64)
    is_absorbed = layout is Layout.CHANNELS_FIRST and _scale_first_weights(normalised, scale)
    # A tree on flat pictures compares with thresholds that may be pixel values: their last bit decides.
    kind = ir.DataType.DOUBLE if layout is Layout.FLAT else ir.DataType.FLOAT
    steps = _Steps(graph, contract, layout, images)
    steps.arrange()
    steps.append("Cast", "cast", {"to": kind})
    if centre.any():
        steps.per_channel("Sub", "mean", centre, kind)
    # float32 is what is multiplied with: a scale of 1 up to its rounding is none.
    if not is_absorbed and not np.allclose(scale, 1, rtol=1e-7, atol=0):
        steps.per_channel("Mul", "scale", scale, kind)
    wanted = normalised.dtype or ir.DataType.FLOAT
    if wanted is not kind:
        steps.append("Cast", "cast_to_network", {"to": wanted})
    graph.inputs[0] = images
    steps.insert(normalised)


class _Steps:
    """Nodes one after the other, from the images to what the network reads."""

    def __init__(self, graph: ir.Graph, contract: InputContract, layout: Layout, images: ir.Value) -> None:
        self._graph = graph
        self._contract = contract
        self._layout = layout
        self._value = images
        self._nodes: list[ir.Node] = []

    def append(self, operator: str, name: str, attributes: Mapping[str, Any], *operands: ir.Value) -> None:
        """One more node."""
        node = ir.node(operator, [self._value, *operands], attributes, name=f"normalise/{name}")
        self._nodes.append(node)
        self._value = node.outputs[0]

    def arrange(self) -> None:
        """From [N, H, W, C] to the network's layout, while a pixel is still one byte."""
        height, width, channels = self._contract.height, self._contract.width, self._contract.channels
        if self._layout is Layout.FLAT:
            self._reshape(-1, height * width * channels)
        elif self._layout is Layout.CHANNELS_FIRST and channels == 1:
            self._reshape(-1, 1, height, width)  # the same bytes in the same order: nothing is moved
        elif self._layout is Layout.CHANNELS_FIRST:
            self.append("Transpose", "arrange", {"perm": [0, 3, 1, 2]})

    def per_channel(self, operator: str, name: str, numbers: NDArray[np.float64], kind: ir.DataType) -> None:
        """One number a channel, shaped to broadcast, in the type of what it meets."""
        shaped: NDArray[np.float64] = numbers.reshape(1, -1, 1, 1)
        if self._layout is Layout.CHANNELS_LAST:
            shaped = numbers.reshape(1, 1, 1, -1)
        elif self._layout is Layout.FLAT:
            shaped = np.tile(numbers, self._contract.height * self._contract.width).reshape(1, -1)
        operand = constant(self._graph, f"normalise.{name}", shaped.astype(kind.numpy()))
        self.append(operator, name, {}, operand)

    def insert(self, normalised: ir.Value) -> None:
        """Puts the nodes in front of everything that read ``normalised``."""
        normalised.replace_all_uses_with(self._value)
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)

    def _reshape(self, *shape: int) -> None:
        target = constant(self._graph, "normalise.shape", np.asarray(shape, dtype=np.int64))
        self.append("Reshape", "arrange", {}, target)


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


def put_probabilities_behind(graph: ir.Graph, task: Task) -> None:
    """Appends softmax or sigmoid of the only output, which becomes ``logits``."""
    logits = graph.outputs[0]
    logits.name = LOGITS_NAME
    if task is Task.MULTICLASS:
        node = ir.node("Softmax", [logits], {"axis": -1}, name=PROBABILITIES_NAME)
    else:
        node = ir.node("Sigmoid", [logits], name=PROBABILITIES_NAME)
    node.outputs[0].name = PROBABILITIES_NAME
    graph.append(node)
    graph.outputs.append(node.outputs[0])


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
