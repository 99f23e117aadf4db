"""Per-channel clamps below max pools: a clip is increasing, so it commutes, and a pool leaves fewer elements.

::

    maxpool(clip(v, L, H)) = clip(maxpool(v), L, H)        L and H one a channel
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from model_export.folding.network import Value
from model_export.folding.rules import Cost, Remainder
from model_export.folding.rules.extremes import Extreme

_aten = torch.ops.aten
_POOLS = (
    _aten.max_pool1d.default,
    _aten.max_pool2d.default,
    _aten.max_pool3d.default,
)


def where_it_sinks(cost: Cost, clipped: Value) -> Cost:
    """The cost of a clip, counted on the elements that the pool after it leaves."""
    while (pool := _only_pool(clipped)) is not None:
        clipped = pool
    sizes = clipped.operation.rule.call.sizes[1:]
    elements = int(torch.Size(sizes).numel())
    return tuple(replace(one, elements=elements) if one.kind is Remainder.CLAMP else one for one in cost)


def _only_pool(value: Value) -> Value | None:
    if len(value.ports) != 1:
        return None
    port = value.ports[0]
    rule = port.operation.rule
    is_pool = isinstance(rule, Extreme) and rule.call.operator.target in _POOLS
    return port.operation.output if is_pool and port.view.is_identity else None


def sink_clamps(graph: fx.Graph) -> None:
    """Move every per-channel clamp behind the max pools that alone read it."""
    for node in list(graph.nodes):
        if node.target is _aten.clamp.Tensor:
            _sink(graph, node)


def _sink(graph: fx.Graph, clamp: fx.Node) -> None:
    source, *ends = clamp.args
    (pool,) = clamp.users if len(clamp.users) == 1 else (None,)
    if pool is None or pool.target not in _POOLS or not isinstance(source, fx.Node):
        return
    pool.replace_input_with(clamp, source)
    with graph.inserting_after(pool):
        sunk = graph.call_function(_aten.clamp.Tensor, (pool, *ends))
    sunk.meta = dict(clamp.meta)
    pool.replace_all_uses_with(sunk, delete_user_cb=lambda user: user is not sunk)
    graph.erase_node(clamp)
    _sink(graph, sunk)
