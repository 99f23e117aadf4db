"""Counts the per-channel affine maps that a program computes.

::

    counted        BatchNorm, tracked InstanceNorm, × ÷ + − by a number or by one constant a channel
    one map        a chain of these of which each feeds only the next: (x/255 − mean)/std
    not counted    a sign (scale ±1, no shift), a clamp, a PReLU, adding a constant that varies over an image,
                   arithmetic on constants alone, arithmetic between two values
"""

from __future__ import annotations

import operator

from torch import fx
from torch.export import ExportedProgram

from model_export.errors import ModelError
from model_export.folding.algebra import Affine, varying_axes
from model_export.folding.facts import observe
from model_export.folding.rules import Call, Facts, affine_map
from model_export.folding.trace import editable, functional


def count_affine_maps(program: ExportedProgram) -> int:
    """How many per-channel affine maps the program computes. It is run once on its own example inputs.

    Raises:
        ModelError: The program carries no example inputs.
    """
    if program.example_inputs is None:
        raise ModelError("a program without example inputs cannot be counted")
    graph_module = editable(functional(program))
    facts = observe(graph_module, program.example_inputs[0]).facts
    chains: dict[fx.Node, Affine] = {}
    for node in graph_module.graph.nodes:
        step = _step(node, facts)
        if step is not None:
            source = _source(node, facts)
            before = chains.pop(source, None) if _feeds_only(source, node) else None
            chains[node] = step if before is None else step.after(before)
    return sum(not chain.is_sign for chain in chains.values())


def _step(node: fx.Node, facts: Facts) -> Affine | None:
    if node.op != "call_function" or facts.is_constant(node) or node not in facts.results:
        return None
    affine = affine_map(_call(node, facts), finer=True)
    is_image = affine is not None and len(varying_axes(affine.shift)) > 1
    return None if is_image else affine


def _call(node: fx.Node, facts: Facts) -> Call:
    parent = node.args[0] if node.target is operator.getitem else None
    return Call(node, facts, parent if isinstance(parent, fx.Node) else None)


def _source(node: fx.Node, facts: Facts) -> fx.Node:
    return _call(node, facts).values[0]


def _feeds_only(source: fx.Node, node: fx.Node) -> bool:
    (user,) = source.users if len(source.users) == 1 else (None,)
    # A BatchNorm is an operator and the item read of it.
    return user is node or (node.target is operator.getitem and user is node.args[0])
