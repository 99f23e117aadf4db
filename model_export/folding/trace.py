"""Between a program and the graph that the fold edits.

::

    nn.Module ──torch.export──▶ ExportedProgram ──functional──▶ GraphModule ──edited──▶ ExportedProgram
               capture                                                        recapture

The graph in the middle is functional (no in-place operator, few spellings an operation) and holds its
weights as attributes under their module paths, so names and module paths survive the round trip.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from model_export.errors import ModelError

# torch's own spelling: a nested structure of dimensions, parallel to the inputs.
DynamicShapes = dict[str, Any] | tuple[Any, ...] | list[Any] | None


@contextmanager
def _quiet() -> Iterator[None]:
    # torch.export copies its own deprecated tree specifications; nothing a caller could change.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        yield


def capture(
    model: nn.Module, example_inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes
) -> ExportedProgram:
    """The model as a functional program.

    Args:
        model: In eval mode; not modified, its parameters are shared.
        example_inputs: What `forward` is traced with.
        dynamic_shapes: As `torch.export.export` takes them.

    Raises:
        ModelError: `torch.export` cannot trace the model.
    """
    try:
        with _quiet():
            return functional(torch.export.export(model, example_inputs, dynamic_shapes=dynamic_shapes))
    except Exception as exc:
        reason = next(iter(str(exc).splitlines()), type(exc).__name__)  # the rest is advice about logs
        raise ModelError(f"{type(model).__name__} cannot be exported: {reason}") from exc


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
