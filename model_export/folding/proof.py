"""The proof of a fold: the original and the folded graph, both run in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from model_export.folding.allocator import Turnover

Observer = Callable[[fx.Node, object], None]


class Float64Interpreter(fx.Interpreter):
    """Runs a graph in float64, converting each weight only while it is used.

    A floating dtype that the graph names (a cast, a constructor) is widened as well, so no step rounds.

    Args:
        graph_module: The graph; not modified.
        observe: Called with each node and its value, before the value is dropped.
    """

    def __init__(self, graph_module: fx.GraphModule, observe: Observer | None = None) -> None:
        super().__init__(graph_module)
        self._observe = observe
        self._turnover = Turnover()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs; what the values on the way held is given back."""
        try:
            return super().run(*args, **kwargs)
        finally:
            self._turnover.give_back()

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, shown to the observer."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self._turnover.add(value.nbytes)
        if self._observe is not None:
            self._observe(n, value)
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The operator, with its weights and every floating dtype that it names widened."""
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None
        if target is torch.ops.aten.copy_.default:
            return args[1]  # what a program keeps for its next run is not written by a proof
        # Here and not where a graph reads its weights, which it may do for all of them at its start.
        given = pytree.tree_map(_used, (args, kwargs))
        self._turnover.add(_bytes_made(given, (args, kwargs)))
        args, kwargs = given
        return super().call_function(target, args, kwargs)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The outputs; one may be a weight."""
        return pytree.tree_map(_used, super().output(target, args, kwargs))


class Recipe(torch.nn.Module):
    """A weight that is computed when it is needed, so that a fold never holds a second model in float64.

    Args:
        compute: Gives it in a dtype, computed in float64 and rounded once.
    """

    def __init__(self, compute: Callable[[torch.dtype], Tensor]) -> None:
        super().__init__()
        self._compute = compute

    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The weight in this dtype."""
        return self._compute(dtype)


def _used(value: Any) -> Any:
    """What an operator is given: widened, and computed where it is still a formula."""
    return widened(value() if isinstance(value, Recipe) else value)


def _bytes_made(given: Any, arguments: Any) -> int:
    """The bytes of those tensors among what an operator is given that were made for it alone."""
    pairs = zip(pytree.tree_leaves(given), pytree.tree_leaves(arguments), strict=True)
    return sum(new.nbytes for new, old in pairs if isinstance(new, Tensor) and new is not old)


def widened(value: Any) -> Any:
    """A floating tensor or dtype as float64; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return value


def run_float64(
    graph_module: fx.GraphModule, inputs: tuple[Tensor, ...], observe: Observer | None = None
) -> list[Tensor]:
    """The graph's output tensors, computed in float64."""
    with torch.no_grad():
        outputs = Float64Interpreter(graph_module, observe).run(
            *pytree.tree_leaves(pytree.tree_map(widened, inputs))
        )
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def relative_error(outputs: list[Tensor], references: list[Tensor]) -> float:
    """The largest max|Δ| / max|reference| of all outputs; plain max|Δ| where the reference is all zero."""
    return max((_relative(a, b) for a, b in zip(outputs, references, strict=True)), default=0.0)


def _relative(output: Tensor, reference: Tensor) -> float:
    if not reference.numel():
        return 0.0
    output, reference = output.double(), reference.double()
    # The same infinity, or no number in both, is no difference.
    same = (output == reference) | (output.isnan() & reference.isnan())
    difference = float(torch.where(same, 0.0, (output - reference).abs()).max())
    largest = float(reference.abs().nan_to_num(0.0, posinf=0.0).max())
    return difference / largest if largest else difference


# So many values of a BatchNorm's output are compared, evenly spread: enough to see, nothing to store.
_SAMPLES = 4096


def sample(value: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """Some of a tensor's values, evenly spread over it: a copy [< 8192].

    Args:
        value: The tensor, not copied as a whole.
        sizes: What it is broadcast to first; its own if not given.
    """
    shape = torch.Size(value.shape if sizes is None else sizes)
    places = torch.arange(0, shape.numel(), max(1, shape.numel() // _SAMPLES))
    return value.expand(shape)[torch.unravel_index(places, shape)]
