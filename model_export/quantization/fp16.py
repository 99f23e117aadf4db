"""Half precision, for GPUs. On a CPU it is slower than float32."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import helper
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxconverter_common import float16

from model_export.quantization.int8 import OWN_NODES, WEIGHTED

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


def to_fp16(model_file: Path, kept: frozenset[str] = frozenset()) -> ir.Model:
    """The graph of ``model_file`` in float16 inside; input and outputs keep their types.

    Numbers too small for float16 become its smallest, not zero; the gates judge whether that matters.

    Args:
        model_file: The float file. Its metadata is not taken over.
        kept: Names of the layers that stay in float, and with each what follows it up to the next one: what
            is too large for float16 is so behind the layer as well.
    """
    model = onnx.load(model_file)
    del model.metadata_props[:]
    weights = {each.name: ir.from_proto(copy.deepcopy(each)) for each in model.graph.initializer}
    behind = _take_behind(model.graph)
    blocked = _with_followers(model.graph, kept)
    _put_one_behind(model.graph, blocked)
    own = [node.name for node in model.graph.node if node.name.startswith(OWN_NODES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line for each number that is rounded to float16's range
        converted = float16.convert_float_to_float16(
            model, keep_io_types=True, node_block_list=[*own, *blocked]
        )
    _put_back(converted.graph, behind)
    graph: ir.Model = ir.from_proto(converted)
    _drop_round_trips(graph, weights)
    return graph


def _drop_round_trips(model: ir.Model, weights: Mapping[str, ir.TensorProtocol]) -> None:
    """From float to half and back again, as the converter writes it for nodes that stay in float.

    Args:
        model: Modified.
        weights: In float, by name.
    """
    for node in [node for node in model.graph if _cast_to(node) is ir.DataType.FLOAT]:
        (half,) = node.inputs
        exact = None if half is None else _before_half(model.graph, half, weights)
        if exact is not None:
            node.outputs[0].replace_all_uses_with(exact)
    RemoveUnusedNodesPass()(model)


def _before_half(
    graph: ir.Graph, half: ir.Value, weights: Mapping[str, ir.TensorProtocol]
) -> ir.Value | None:
    """What ``half`` was rounded from; None where it was computed in half precision."""
    producer = half.producer()
    if producer is not None:
        return producer.inputs[0] if _cast_to(producer) is ir.DataType.FLOAT16 else None
    if half.name is None or half.name not in weights:
        return None
    name, exact = f"{half.name}.float", weights[half.name]
    if name not in graph.initializers:
        kind = ir.TensorType(exact.dtype)
        graph.register_initializer(ir.Value(name=name, type=kind, shape=half.shape, const_value=exact))
    return graph.initializers[name]


def _cast_to(node: ir.Node) -> ir.DataType | None:
    return ir.DataType(node.attributes["to"].as_int()) if node.op_type == "Cast" else None


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


def _with_followers(graph: onnx.GraphProto, kept: frozenset[str]) -> frozenset[str]:
    """The ``kept`` nodes and all that follow one of them before the next layer with weights."""
    layer_of: dict[str, str] = {}  # by the name of a value: the layer that it comes from
    blocked = set()
    for node in graph.node:
        layer = next((layer_of[name] for name in node.input if name in layer_of), "")
        if node.op_type in WEIGHTED:
            layer = node.name
        layer_of |= dict.fromkeys(node.output, layer)
        if layer in kept:
            blocked.add(node.name)
    return frozenset(blocked)


def _put_one_behind(graph: onnx.GraphProto, kept: frozenset[str]) -> None:
    """A node behind each kept one that makes an output: the converter gives such an output a wrong type."""
    outputs = {output.name for output in graph.output}
    for node in [node for node in graph.node if node.name in kept]:
        for position, name in enumerate(node.output):
            if name in outputs:
                node.output[position] = f"{name}.kept"
                graph.node.append(helper.make_node("Identity", [f"{name}.kept"], [name], f"{node.name}.kept"))


def _put_back(graph: onnx.GraphProto, behind: _Behind) -> None:
    graph.node.extend(behind.nodes)
    graph.initializer.extend(behind.weights)
    del graph.output[:]
    graph.output.extend(behind.outputs)
