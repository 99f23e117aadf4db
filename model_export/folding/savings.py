"""What a fold saved: operators, elementwise operations, bytes."""

from __future__ import annotations

from math import prod
from operator import attrgetter

from torch import Tensor, fx

from model_export.folding.algebra import Affine
from model_export.folding.choice import Choice
from model_export.folding.network import Network
from model_export.folding.report import Savings


def count_savings(before: fx.GraphModule, after: fx.GraphModule, network: Network, choice: Choice) -> Savings:
    """The difference between a graph and its folded form, for one instance of the example's size."""
    maps = sum(_steps(spot.affine) * _elements(network, spot.node) for spot in network.affine_spots)
    left = sum(_steps(one.affine) * _elements(network, one.value.node) for one in choice.maps)
    return Savings(
        operators=_operators(before) - _operators(after),
        elementwise_operations=maps - left,
        weight_bytes=_bytes(before) - _bytes(after),
    )


def _steps(affine: Affine) -> int:
    """Operations an element: a multiplication, an addition, or both."""
    return int(bool((affine.scale != 1).any())) + int(affine.has_shift)


def _elements(network: Network, node: fx.Node) -> int:
    return prod(network.facts.sizes(node)[1:])


def _operators(graph_module: fx.GraphModule) -> int:
    return sum(node.op == "call_function" for node in graph_module.graph.nodes)


def _bytes(graph_module: fx.GraphModule) -> int:
    """Bytes of every tensor that the graph reads, each once."""
    read: dict[int, Tensor] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and node.users:
            value = attrgetter(str(node.target))(graph_module)
            if isinstance(value, Tensor):
                read[value.data_ptr()] = value
    return sum(value.numel() * value.element_size() for value in read.values())
