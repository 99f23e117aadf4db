"""Half precision, for GPUs. On a CPU it is slower than float32."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxconverter_common import float16

from model_export.quantization.int8 import OWN_NODES

_BEHIND_THE_NETWORK = ("probabilities", "adopt/")  # what the served graph appends: it reads one output


@dataclass(frozen=True, slots=True)
class _Behind:
    """What the converter would give wrong types: what stands behind an output of the network.

    Attributes:
        nodes: In their order.
        weights: That they read.
        outputs: Of the whole graph.
    """

    nodes: tuple[onnx.NodeProto, ...]
    weights: tuple[onnx.TensorProto, ...]
    outputs: tuple[onnx.ValueInfoProto, ...]


def to_fp16(model_file: Path) -> ir.Model:
    """The graph of ``model_file`` in float16 inside; input and outputs keep their types.

    Numbers too small for float16 become its smallest, not zero; the gates judge whether that matters.

    Args:
        model_file: The float file. Its metadata is not taken over.
    """
    model = onnx.load(model_file)
    del model.metadata_props[:]
    behind = _take_behind(model.graph)
    own = [node.name for node in model.graph.node if node.name.startswith(OWN_NODES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line for each number that is rounded to float16's range
        converted = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=own)
    _put_back(converted.graph, behind)
    graph: ir.Model = ir.from_proto(converted)
    return graph


def _take_behind(graph: onnx.GraphProto) -> _Behind:
    """Removes the nodes behind the network from ``graph``."""
    nodes = tuple(node for node in graph.node if node.name.startswith(_BEHIND_THE_NETWORK))
    read = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    weights = tuple(weight for weight in graph.initializer if weight.name in read)
    outputs = tuple(graph.output)
    for node in nodes:
        graph.node.remove(node)
    for weight in weights:
        graph.initializer.remove(weight)
    for output in outputs:
        if output.name in made:
            graph.output.remove(output)
    for inferred in [value for value in graph.value_info if value.name in made | read]:
        graph.value_info.remove(inferred)
    return _Behind(nodes, weights, outputs)


def _put_back(graph: onnx.GraphProto, behind: _Behind) -> None:
    graph.node.extend(behind.nodes)
    graph.initializer.extend(behind.weights)
    del graph.output[:]
    graph.output.extend(behind.outputs)
