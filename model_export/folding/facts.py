"""What a fold knows of a program before it starts: sizes, constants, and the outputs to compare with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx

from model_export.folding.proof import run_float64, sample, widened
from model_export.folding.rules.call import Facts
from model_export.folding.rules.spellings import NORMALIZATIONS

# Constants up to this many elements are kept once computed; larger ones (weights) are computed at each use,
# so that the model is never held a second time in float64.
_KEPT_ELEMENTS = 1 << 16


@dataclass(frozen=True, eq=False)
class Observation:
    """One run of a program in float64.

    Attributes:
        facts: What it showed.
        outputs: The program's output tensors.
        samples: Some values of each BatchNorm's output.
    """

    facts: Facts
    outputs: list[Tensor]
    samples: Mapping[fx.Node, Tensor]


def observe(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Observation:
    """Run the graph once in float64 and keep what a fold needs to know."""
    results: dict[fx.Node, tuple[int, ...] | int | None] = {}
    samples: dict[fx.Node, Tensor] = {}

    def record(node: fx.Node, value: object) -> None:
        results[node] = tuple(value.shape) if isinstance(value, Tensor) else None
        if isinstance(value, int):
            results[node] = value
        if isinstance(value, Tensor) and _is_normalization(node):
            samples[node] = sample(value)

    outputs = run_float64(graph_module, inputs, record)
    return Observation(Facts(results, _constants(graph_module)), outputs, samples)


def _is_normalization(node: fx.Node) -> bool:
    source = node.args[0] if node.target is operator.getitem else node
    return isinstance(source, fx.Node) and source.target in NORMALIZATIONS


def _constants(graph_module: fx.GraphModule) -> Mapping[fx.Node, Callable[[], Tensor]]:
    written = _written_buffers(graph_module)
    compute: dict[fx.Node, Callable[[], Any]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and node.target not in written:
            value = operator.attrgetter(str(node.target))(graph_module)
            if isinstance(value, Tensor):
                compute[node] = value.detach
        elif (
            node.op == "call_function" and _is_pure(node) and all(n in compute for n in node.all_input_nodes)
        ):
            compute[node] = _evaluation(node, compute)
    return {node: value for node, value in compute.items() if isinstance(node.meta.get("val"), Tensor)}


def _written_buffers(graph_module: fx.GraphModule) -> set[object]:
    copies = (n for n in graph_module.graph.nodes if n.target is torch.ops.aten.copy_.default)
    return {node.args[0].target for node in copies if isinstance(node.args[0], fx.Node)}


def _is_pure(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    tags = getattr(node.target, "tags", ())
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in tags


def _evaluation(node: fx.Node, compute: Mapping[fx.Node, Callable[[], Any]]) -> Callable[[], Any]:
    target = node.target
    if not callable(target):
        raise TypeError(f"{node.format_node()} is no call")

    @lru_cache(maxsize=1)
    def kept() -> Any:
        return evaluated()

    def evaluated() -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda argument: compute[argument]())
        args, kwargs = torch.utils._pytree.tree_map(widened, (args, kwargs))
        with torch.no_grad():
            return target(*args, **kwargs)

    value = node.meta.get("val")
    small = isinstance(value, Tensor) and value.numel() <= _KEPT_ELEMENTS
    return kept if small else evaluated
