"""Writes the folded graph: every operation again, reading and writing the forms that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from model_export.errors import VerificationFailed
from model_export.folding.algebra import Affine, compressed
from model_export.folding.allocator import Turnover
from model_export.folding.choice import Choice
from model_export.folding.names import module_path
from model_export.folding.network import Network, Operation, Value
from model_export.folding.proof import Recipe
from model_export.folding.rules import Call, Facts

_aten = torch.ops.aten


class GraphWriter:
    """Writes operators into a new graph; the `Writer` that rules are given.

    Args:
        original: Its weights are shared, its graph is read.
        facts: Of the original.
    """

    def __init__(self, original: fx.GraphModule, facts: Facts) -> None:
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self._original, self._facts = original, facts
        # Any stored form of an original node: enough for who only asks for its size.
        self.nodes: dict[fx.Node, fx.Node] = {}
        self._names: set[str] = set()
        self.affine_nodes: set[fx.Node] = set()

    def again(self, call: Call, inputs: Sequence[fx.Node]) -> fx.Node:
        """The same operator on other inputs."""
        given = dict(zip(call.values, inputs, strict=True))
        operator = self.copy(call.operator, given)
        return operator if call.operator is call.node else self.copy(call.node, {call.operator: operator})

    def copy(self, node: fx.Node, given: dict[fx.Node, fx.Node]) -> fx.Node:
        """A node with its inputs replaced; those not given are looked up or copied."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: given.get(one) or self._lookup(one))
        new = self.graph.create_node(node.op, node.target, args, kwargs, name=node.name)
        return self._marked(new, node)

    def _lookup(self, node: fx.Node) -> fx.Node:
        if node not in self.nodes:
            self.nodes[node] = self._attribute(node) if node.op == "get_attr" else self.copy(node, {})
        return self.nodes[node]

    def _attribute(self, node: fx.Node) -> fx.Node:
        target = str(node.target)
        new = self.graph.create_node("get_attr", target, name=node.name)
        return self._marked(new, node)

    def call(self, call: Call, target: Any, *args: Any) -> fx.Node:
        """Another operator in the place of ``call``."""
        return self._marked(self.graph.call_function(target, args), call.node)

    def constant(self, call: Call, name: str, compute: Callable[[torch.dtype], Tensor]) -> fx.Node:
        """A new constant, computed when it is needed."""
        attribute = self._free_name(f"{module_path(call.node).replace('.', '_')}_{name}")
        dtype = call.dtype or torch.float32
        self.root.add_module(attribute, _Weight(compute, dtype))
        return self.graph.get_attr(attribute)

    def affine(self, value: Value, source: fx.Node, affine: Affine) -> fx.Node:
        """``scale·source + shift`` as plain arithmetic."""
        call, result = value.operation.rule.call, source
        scale, shift = compressed(affine.scale), compressed(affine.shift)
        if bool((scale != 1).any()):
            result = self.call(call, _aten.mul.Tensor, result, self.constant(call, "scale", scale.to))
            self.affine_nodes.add(result)
        if bool((shift != 0).any()):
            result = self.call(call, _aten.add.Tensor, result, self.constant(call, "shift", shift.to))
            self.affine_nodes.add(result)
        return result

    def _free_name(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._names or hasattr(self._original, candidate):
            candidate, count = f"{name}_{count}", count + 1
        self._names.add(candidate)
        return candidate

    def _marked(self, new: fx.Node, origin: fx.Node) -> fx.Node:
        new.meta = {key: origin.meta[key] for key in ("nn_module_stack", "stack_trace") if key in origin.meta}
        return new


class _Weight(Recipe):
    """A new weight and the dtype that it will be rounded to."""

    def __init__(self, compute: Callable[[torch.dtype], Tensor], dtype: torch.dtype) -> None:
        super().__init__(compute)
        self.dtype = dtype


@dataclass(frozen=True, eq=False)
class WrittenGraph:
    """The folded graph, its new weights still recipes.

    Attributes:
        graph_module: The graph.
        produced: Where each value is produced in it.
        affine: Its nodes that are left of affine maps.
    """

    graph_module: fx.GraphModule
    produced: Mapping[Value, fx.Node]
    affine: frozenset[fx.Node]


def write_graph(original: fx.GraphModule, network: Network, choice: Choice) -> WrittenGraph:
    """The folded graph."""
    writer = GraphWriter(original, network.facts)
    stored: dict[tuple[Value, int], fx.Node] = {}

    def source(value: Value, form: Affine) -> fx.Node:
        return stored[value, id(form)]

    for operation in network.operations:
        new = _write_operation(writer, operation, choice, source)
        value = operation.output
        if value is None:
            continue
        stored[value, id(choice.produced[value])] = new
        for left in choice.maps:
            if left.value is value:
                stored[value, id(left.form)] = writer.affine(value, new, left.affine)
        for node, (viewed, _) in network.views.items():
            if viewed is value:
                writer.nodes[node] = new
    produced = {value: stored[value, id(form)] for value, form in choice.produced.items()}
    return WrittenGraph(_assembled(writer, original), produced, frozenset(writer.affine_nodes))


def _write_operation(
    writer: GraphWriter, operation: Operation, choice: Choice, source: Callable[[Value, Affine], fx.Node]
) -> fx.Node:
    rule = operation.rule
    inputs = [source(port.value, choice.read[port]) for port in operation.ports]
    forms = [port.stored(choice.read[port]) for port in operation.ports]
    if operation.output is None:
        return writer.again(rule.call, inputs)
    return rule.emit(writer, inputs, forms, choice.produced[operation.output])


def _assembled(writer: GraphWriter, original: fx.GraphModule) -> fx.GraphModule:
    """A module around the graph, with the original's weights where the graph reads them."""
    writer.graph.eliminate_dead_code()
    attributes = torch.nn.Module()
    for node in writer.graph.nodes:
        if node.op == "get_attr":
            _share(
                attributes, original if not hasattr(writer.root, node.target) else writer.root, node.target
            )
    writer.graph._codegen = original.graph._codegen
    return fx.GraphModule(attributes, writer.graph)


def _share(target: torch.nn.Module, source: torch.nn.Module, name: str) -> None:
    """Put ``source``'s attribute of this dotted name into ``target``, with the modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(target, part):
            target.add_module(part, torch.nn.Module())
        target, source = getattr(target, part), getattr(source, part)
    value = getattr(source, last)
    if isinstance(value, torch.nn.Module):
        target.add_module(last, value)
    elif isinstance(value, torch.nn.Parameter):
        target.register_parameter(last, value)
    elif isinstance(value, Tensor):
        target.register_buffer(last, value, persistent=last not in source._non_persistent_buffers_set)
    else:
        setattr(target, last, value)


def round_weights(graph_module: fx.GraphModule) -> frozenset[str]:
    """Turn every recipe into a parameter of its dtype, the one rounding of a fold; their names.

    Raises:
        VerificationFailed: A weight has no finite value in its dtype.
    """
    recipes = {name: one for name, one in graph_module.named_children() if isinstance(one, _Weight)}
    turnover = Turnover()
    for name, recipe in recipes.items():
        value = recipe(recipe.dtype).contiguous()
        if not bool(value.isfinite().all()) and bool((value.isinf() & recipe().isfinite()).any()):
            raise VerificationFailed(
                f"{name} does not fit into {recipe.dtype}: fold the model in float32 (model.float())"
            )
        turnover.add(value.nbytes)
        delattr(graph_module, name)
        graph_module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    return frozenset(recipes)
