"""Counts the per-channel affine maps of an ONNX graph: the rule of `tests.folding.collection.counting`.

::

    counted       BatchNormalization · Mul Div Add Sub by a constant · a depthwise 1×1 Conv
    one map       a chain of these, each with no other use
    not counted   × ±1 and Neg (a sign) · + a constant that varies along two axes (a constant map)
                  · the Add that is a MatMul's bias · arithmetic on constants or between two live values

The values are read from one run in ONNX Runtime without optimisations, with every tensor an output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[np.generic]
Feeds = dict[str, Array]

_ARITHMETIC = {"Mul", "Div", "Add", "Sub"}
_SAME_VALUE = {"Identity", "Dropout", "Cast"}
_SIZES = {"Shape", "Size", "ConstantOfShape"}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session that runs the graph as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Reading:
    """A graph with the values of all its tensors, and which of them depend on the inputs."""

    graph: onnx.GraphProto
    values: dict[str, Array]
    live: set[str] = field(default_factory=set)
    uses: Counter[str] = field(default_factory=Counter)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.live.update(value.name for value in self.graph.input)
        self.uses.update(value.name for value in self.graph.output)
        for node in self.graph.node:
            self.uses.update(node.input)
            self.makers.update(dict.fromkeys(node.output, node))
            if node.op_type not in _SIZES and self.live.intersection(node.input):
                self.live.update(node.output)

    def __iter__(self) -> Iterator[onnx.NodeProto]:
        """Over the nodes that depend on the inputs."""
        return (node for node in self.graph.node if self.live.intersection(node.output))

    def live_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that depend on the graph's."""
        return [name for name in node.input if name in self.live]


def read(model: onnx.ModelProto, feeds: Feeds) -> Reading:
    """Run ``model`` once. Not modified."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in exposed.graph.output}
    names = [name for node in exposed.graph.node for name in node.output if name and name not in known]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    running = session(exposed)
    outputs = [value.name for value in running.get_outputs()]
    values: dict[str, Array] = dict(zip(outputs, running.run(outputs, feeds), strict=True))
    values |= {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return Reading(model.graph, values | feeds)


def count(model: onnx.ModelProto, feeds: Feeds) -> int:
    """The per-channel affine maps of ``model``.

    Args:
        model: Without local functions; domains that ONNX Runtime knows.
        feeds: An input to run it on.
    """
    reading = read(model, feeds)
    kinds = {node.output[0]: _kind(node, reading) for node in reading}
    chains: dict[str, str] = {}
    counted: set[str] = set()
    for node in reading:
        name = node.output[0]
        if kinds[name] is None:
            continue
        source = reading.live_inputs(node)[0]
        alone = reading.uses[source] == 1 and kinds.get(source) is not None
        chains[name] = chains[source] if alone else name
        if kinds[name] == "affine":
            counted.add(chains[name])
    return len(counted)


def _kind(node: onnx.NodeProto, reading: Reading) -> str | None:
    if node.op_type in _SAME_VALUE:
        return "same"
    if node.op_type == "Neg":
        return "sign"
    if node.op_type == "BatchNormalization":
        return "affine"
    if node.op_type in {"Conv", "FusedConv"}:
        return "affine" if _is_disguised(node, reading) else None
    return _arithmetic(node, reading) if node.op_type in _ARITHMETIC else None


def _is_disguised(node: onnx.NodeProto, reading: Reading) -> bool:
    """Whether a Conv is one number a channel: depthwise, 1×1, not strided."""
    weight = reading.values[node.input[1]]
    source, output = reading.values[node.input[0]], reading.values[node.output[0]]
    depthwise = weight.shape[1] == 1 and weight.shape[0] == source.shape[1] > 1
    return depthwise and all(size == 1 for size in weight.shape[2:]) and source.shape == output.shape


def _arithmetic(node: onnx.NodeProto, reading: Reading) -> str | None:
    live = reading.live_inputs(node)
    left, right = node.input
    if len(live) == 2:
        return "affine" if left == right and node.op_type == "Add" else None
    if node.op_type == "Div" and right in reading.live:
        return None
    constant = reading.values[right if left in reading.live else left].astype(np.float64)
    if node.op_type in {"Mul", "Div"}:
        return "sign" if bool((np.abs(constant) == 1).all()) else "affine"
    maker = reading.makers.get(live[0])
    if (
        node.op_type == "Add"
        and maker is not None
        and maker.op_type == "MatMul"
        and reading.uses[live[0]] == 1
    ):
        return None  # the exporter's spelling of a Linear's bias
    if not constant.any():
        return "sign" if node.op_type == "Sub" and right in reading.live else "same"
    return None if _varying_axes(constant) > 1 else "affine"


def _varying_axes(constant: NDArray[np.float64]) -> int:
    """Along how many axes the numbers differ by more than rounding."""
    resolution = 1e-6 * float(np.abs(constant).max())
    spreads = (np.ptp(constant, axis=axis) for axis in range(constant.ndim))
    return sum(bool((spread > resolution).any()) for spread in spreads)
