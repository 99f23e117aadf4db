"""How much memory the activations of one instance need at the same moment.

A value lives from the operator that makes it to the last one that reads it; a view lives in the memory
of what it shows. The peak over all operators is what a runtime without tricks needs (one that computes
in place, or block by block, may need less).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node

from model_export.cost.operators import VIEWS, instance_bytes, operator_name, tensors


def peak_bytes(nodes: Iterable[Node], constants: set[str]) -> int:
    """The most bytes that live at once.

    Args:
        nodes: Of the whole graph, in order.
        constants: Names of the stored weights, which are no activations.
    """
    order = list(nodes)
    owners = _owners(order)
    last_read = {owners[source]: node for node in order for source in node.all_input_nodes}
    live: dict[Node, int] = {}
    peak = 0
    for node in order:
        if owners[node] is node and node.op != "output" and node.name not in constants:
            live[node] = sum(instance_bytes(tensor) for tensor in tensors(node))
        peak = max(peak, sum(live.values()))
        for owner in [owner for owner in live if last_read.get(owner) in (node, None)]:
            del live[owner]
    return peak


def _owners(order: list[Node]) -> dict[Node, Node]:
    """Whose memory each value lies in: its own, or that of what it is a view of."""
    owners: dict[Node, Node] = {}
    for node in order:
        is_view = node.op == "call_function" and operator_name(node) in VIEWS and node.all_input_nodes
        owners[node] = owners[node.all_input_nodes[0]] if is_view else node
    return owners
