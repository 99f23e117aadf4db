"""`fold`: from a module to a program without the BatchNorms that algebra can spare.

::

    nn.Module ─capture▶ program ─editable▶ graph ─observe▶ facts, float64 outputs
                                             └─read_network▶ values, operations, views
    collect_forms ▶ choose_forms ▶ write_graph ▶ proof in float64 ▶ round_weights ▶ recapture ▶ program
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from model_export.errors import FoldRefused, VerificationFailed
from model_export.folding.channels import find_dead_channels
from model_export.folding.choice import Choice, choose_forms
from model_export.folding.comparison import Proof, prove
from model_export.folding.facts import Observation, observe
from model_export.folding.fates import tell_fates
from model_export.folding.forms import collect_forms, plain_forms
from model_export.folding.names import first_names, module_path, normalization_name
from model_export.folding.network import Network, read_network
from model_export.folding.picture import drawing
from model_export.folding.proof import relative_error, run_float64
from model_export.folding.pruning import prune_channels
from model_export.folding.report import FoldReport
from model_export.folding.rules import Remainder
from model_export.folding.rules.spellings import NORMALIZATIONS
from model_export.folding.savings import count_savings
from model_export.folding.sinking import sink_clamps
from model_export.folding.trace import DynamicShapes, capture, editable, recapture
from model_export.folding.writing import WrittenGraph, round_weights, write_graph
from model_export.records import Fate, Objective

_aten = torch.ops.aten
# max|Δ| / max|reference| of any output, in float64: a fold that is further off is not used.
MAX_ERROR = 1e-10
# What an exported BatchNorm becomes when it is no constant affine map.
_REFUSED: dict[object, str] = {
    _aten._native_batch_norm_legit_functional.default: "training mode",
    _aten._native_batch_norm_legit.default: "training mode",
    _aten._native_batch_norm_legit.no_stats: "no running statistics; train it with them",
}


@dataclass(frozen=True, slots=True)
class FoldResult:
    """The folded program and what became of every BatchNorm.

    Attributes:
        program: Same inputs and outputs as the model; no BatchNorm in it that could be folded. What
            remains of one is plain arithmetic.
        report: One `Fate` per BatchNorm.
    """

    program: ExportedProgram
    report: FoldReport


def fold(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    objective: Objective = "fewest",
    dynamic_shapes: DynamicShapes = None,
    allow_refusals: bool = False,
    prune: bool = False,
) -> FoldResult:
    """The model as a program with its BatchNorms folded away, proven in float64 against the original.

    Args:
        model: In eval mode. Not modified.
        example_inputs: What `forward` is traced with; a dynamic batch needs at least 2 instances.
        objective: ``"fewest"`` leaves the fewest affine maps; ``"speed"`` places what remains where ONNX
            Runtime computes it fastest.
        dynamic_shapes: As `torch.export.export` takes them.
        allow_refusals: Leave a BatchNorm that is no constant affine map in place, and report it.
        prune: Also drop dead and constant channels, exactly.

    Raises:
        FoldRefused: A BatchNorm in training mode or without running statistics, named.
        ModelError: `torch.export` cannot trace the model.
        VerificationFailed: The folded program is not the original's equal.
    """
    original = editable(capture(model, example_inputs, dynamic_shapes))
    refused = (*_refusals(original, allow_refusals), *_in_branches(original))
    observation = observe(original, example_inputs)
    network = read_network(original.graph, observation.facts, objective)
    choice, written, proof = _proven(original, network, observation, example_inputs, objective)
    new = round_weights(written.graph_module)
    pruned = _pruned(written.graph_module, example_inputs, objective) if prune else 0
    report = FoldReport(
        objective=objective,
        fates=(
            *refused,
            *tell_fates(network, choice, objective, proof.batch_norm_errors, first_names(model)),
        ),
        affine_maps_left=sum(left.kind is Remainder.MAP for left in choice.maps),
        error=proof.error,
        savings=count_savings(original, written.graph_module, network, choice),
        dead_channels=find_dead_channels(network),
        pruned=pruned,
        before=drawing(original.graph, {spot.node for spot in network.affine_spots}, ()),
        after=drawing(written.graph_module.graph, written.affine, new),
    )
    return FoldResult(recapture(written.graph_module, example_inputs, dynamic_shapes), report)


def _proven(
    original: fx.GraphModule,
    network: Network,
    observation: Observation,
    inputs: tuple[Tensor, ...],
    objective: Objective,
) -> tuple[Choice, WrittenGraph, Proof]:
    """The best fold that is exact; one that carries nothing past an operator if the best one is not."""
    for forms in (collect_forms, plain_forms):
        choice = choose_forms(network, forms(network), objective)
        written = write_graph(original, network, choice)
        sink_clamps(written.graph_module.graph)
        proof = prove(written, network, choice, observation, inputs)
        if proof.error <= MAX_ERROR:
            return choice, written, proof
    raise VerificationFailed(f"the folded program differs by {proof.error:.1e}, allowed are {MAX_ERROR:.0e}")


def _pruned(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...], objective: Objective) -> int:
    """Drop constant channels and prove that nothing changed but the rounding of a bias."""
    references = run_float64(graph_module, inputs)
    pruned = prune_channels(graph_module, objective)
    error = relative_error(run_float64(graph_module, inputs), references)
    weights = [weight for weight in graph_module.parameters() if weight.is_floating_point()]
    resolution = max((torch.finfo(weight.dtype).eps for weight in weights), default=0.0)
    if not error <= max(MAX_ERROR, 64 * resolution):
        raise VerificationFailed(f"the pruned program differs by {error:.1e}")
    return pruned


def _refusals(graph_module: fx.GraphModule, allow: bool) -> Iterator[Fate]:
    for node in _nodes(graph_module):
        reason = _REFUSED.get(node.target)
        if reason is None:
            continue
        name = module_path(node)
        if not allow:
            raise FoldRefused(name, reason)
        yield Fate(name, "refused", name, "", reason, None)


def _in_branches(graph_module: fx.GraphModule) -> Iterator[Fate]:
    """Those that run on a condition stay: what a branch is given and gives must suit the other one too."""
    for node in _nodes(graph_module):
        if node.target in NORMALIZATIONS and node.graph is not graph_module.graph:
            name = normalization_name(node)
            yield Fate(name, "kept", name, "", "it stands in the branch of a conditional", None)


def _nodes(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    """Of the program and of the branches of its conditionals."""
    graphs = [module.graph for module in graph_module.modules() if isinstance(module, fx.GraphModule)]
    return (node for graph in graphs for node in graph.nodes)
