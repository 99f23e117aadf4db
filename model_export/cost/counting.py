"""The cost table of an exported program."""

from __future__ import annotations

from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from model_export.cost.liveness import peak_bytes
from model_export.cost.operators import VIEWS, instance_bytes, instance_shape, macs, operator_name, tensors
from model_export.records import CostTable, LayerCost


def count(program: ExportedProgram) -> CostTable:
    """The cost of every operator of ``program``, in its order.

    A weight that several operators share is stored once, and counts where it is read first.

    Args:
        program: Any `torch.export` program whose inputs have the batch first. Not modified.
    """
    signature = program.graph_signature
    constants = {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }
    stored = set(constants)
    layers = []
    for node in program.graph.nodes:
        if node.op == "call_function" and tensors(node):
            read = [source for source in node.all_input_nodes if source.name in stored]
            stored -= {source.name for source in read}
            layers.append(_layer(node, read, constants))
    return CostTable(tuple(layers), peak_bytes(program.graph.nodes, constants))


def _layer(node: Node, weights: list[Node], constants: set[str]) -> LayerCost:
    operator = operator_name(node)
    outputs = tensors(node)
    multiply_adds = macs(node)
    # A normalisation reads its running statistics, but they are not learnt. What a fold writes is.
    statistics = node.args[3:5] if "batch_norm" in operator else ()
    return LayerCost(
        name=module_path(node),
        operator=operator,
        parameters=sum(tensors(weight)[0].numel() for weight in weights if weight not in statistics),
        weight_bytes=sum(_stored_bytes(tensors(weight)[0]) for weight in weights),
        activation_bytes=0 if operator in VIEWS else sum(instance_bytes(output) for output in outputs),
        macs=multiply_adds or 0,
        output_shape=instance_shape(outputs[0]),
        known=multiply_adds is not None,
        moved_bytes=0 if operator in VIEWS else _moved_bytes(node, constants),
    )


def _moved_bytes(node: Node, constants: set[str]) -> int:
    read = sum(
        _stored_bytes(tensor) if source.name in constants else instance_bytes(tensor)
        for source in node.all_input_nodes
        for tensor in tensors(source)
    )
    return read + sum(instance_bytes(output) for output in tensors(node))


def module_path(node: Node) -> str:
    """The innermost module that ``node`` came from; its own name where it came from none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return str(paths[-1]) if paths else node.name


def _stored_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
