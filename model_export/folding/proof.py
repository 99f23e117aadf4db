"""The proof of a fold: the original and the folded graph, both run in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree


class Float64Interpreter(fx.Interpreter):
    """Runs a graph in float64, converting each weight only while it is used.

    A dtype that the graph names (a cast, a constructor) is widened as well.
    """

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The attribute, widened."""
        return _widen(super().get_attr(target, args, kwargs))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The operator, with every floating dtype that it names widened."""
        args, kwargs = pytree.tree_map(_widen_dtype, (args, kwargs))
        return super().call_function(target, args, kwargs)


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value


def _widen_dtype(value: object) -> object:
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def run_float64(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The graph's output tensors, computed in float64."""
    with torch.no_grad():
        outputs = Float64Interpreter(graph_module).run(*pytree.tree_map(_widen, inputs))
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def relative_error(outputs: list[Tensor], references: list[Tensor]) -> float:
    """The largest max|Δ| / max|reference| of all outputs; plain max|Δ| where the reference is all zero."""
    return max((_relative(a, b) for a, b in zip(outputs, references, strict=True)), default=0.0)


def _relative(output: Tensor, reference: Tensor) -> float:
    difference = float((output - reference).abs().max()) if output.numel() else 0.0
    largest = float(reference.abs().max()) if reference.numel() else 0.0
    return difference / largest if largest else difference
