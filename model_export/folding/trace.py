"""Between a program and the graph that the fold edits.

::

    nn.Module ──torch.export──▶ ExportedProgram ──functional──▶ GraphModule ──edited──▶ ExportedProgram
               capture                                                        recapture

The graph in the middle is functional (no in-place operator, few spellings an operation) and holds its
weights as attributes under their module paths, so names and module paths survive the round trip.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from model_export.errors import ModelError

# torch's own spelling: a nested structure of dimensions, parallel to the inputs.
DynamicShapes = dict[str, Any] | tuple[Any, ...] | list[Any] | None


# What `torch.export` says, and what that means for whoever wrote the network.
_MEANINGS: Final = {
    "specialized it to be a constant": "it is made for batches of one size; take that from the input's shape",
    "data-dependent": "its way depends on what the pictures show; let `torch.where` choose, not an `if`",
}


@contextmanager
def _quiet() -> Iterator[None]:
    # torch.export copies its own deprecated tree specifications, finds the flat weights of recurrent layers
    # odd, and prints the graph where it fails; nothing a caller could change.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", category=UserWarning, message=".*assigned during export.*")
        yield


def capture(
    model: nn.Module, example_inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes
) -> ExportedProgram:
    """The model as a functional program. Arguments and errors are those of `traced`."""
    return functional(traced(model, example_inputs, dynamic_shapes))


def traced(
    model: nn.Module, example_inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes
) -> ExportedProgram:
    """The model as a program, in the operators that it was written in.

    Args:
        model: In eval mode; not modified, its parameters are shared.
        example_inputs: What `forward` is traced with.
        dynamic_shapes: As `torch.export.export` takes them.

    Raises:
        ModelError: `torch.export` cannot trace the model.
    """
    try:
        with _quiet():
            return torch.export.export(model, example_inputs, dynamic_shapes=dynamic_shapes)
    except Exception as exc:
        raise ModelError(f"{type(model).__name__} cannot be exported: {_reason(exc)}") from exc


def _reason(error: Exception) -> str:
    """One line: what it means if that is known, else the first one; the others are advice about logs."""
    text = str(error)
    known = next((meaning for words, meaning in _MEANINGS.items() if words in text), None)
    return known or next(iter(text.splitlines()), type(error).__name__)


def functional(program: ExportedProgram) -> ExportedProgram:
    """The same program without in-place operators."""
    with _quiet():
        result: ExportedProgram = program.run_decompositions({})
        return result


def editable(program: ExportedProgram) -> fx.GraphModule:
    """The program's graph with its weights as attributes; shares the weights, not the graph."""
    with _quiet():
        module = program.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise ModelError(f"a program's module is a GraphModule, not a {type(module).__name__}")
    return module


def recapture(
    graph_module: fx.GraphModule, example_inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes
) -> ExportedProgram:
    """The edited graph as a program again. What the graph no longer reads is dropped."""
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    with _quiet():
        return torch.export.export(graph_module, example_inputs, dynamic_shapes=dynamic_shapes)
