"""`fold`: from a module to a program without the BatchNorms that algebra can spare."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from model_export.errors import FoldRefused, InvalidConfig
from model_export.folding import algebra
from model_export.folding.algebra import AffineMap, Interval
from model_export.folding.proof import relative_error, run_float64
from model_export.folding.report import FoldReport
from model_export.folding.trace import DynamicShapes, capture, editable, recapture
from model_export.records import Fate, Objective

_aten = torch.ops.aten
_EVALUATING = (_aten._native_batch_norm_legit_no_training.default,)
_CONVOLUTIONS = (_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default)
_TRANSPOSED = (
    _aten.conv_transpose1d.default,
    _aten.conv_transpose2d.input,
    _aten.conv_transpose3d.input,
)
_TRAINING = (_aten._native_batch_norm_legit_functional.default, _aten._native_batch_norm_legit.no_stats)


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
    """
    if prune:
        raise InvalidConfig("prune=True: dropping channels is not available")
    program = capture(model, example_inputs, dynamic_shapes)
    original, edited = editable(program), editable(program)
    fates = [*_refusals(edited, allow_refusals)]
    fates += [_fold_one(edited, node, objective) for node in list(_batch_norms(edited))]
    error = relative_error(run_float64(edited, example_inputs), run_float64(original, example_inputs))
    kept = sum(fate.outcome == "kept" for fate in fates)
    report = FoldReport(objective, tuple(fates), kept, error)
    return FoldResult(recapture(edited, example_inputs, dynamic_shapes), report)


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]).split("@")[0] if paths else node.name


def _batch_norms(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    return (node for node in graph_module.graph.nodes if node.target in _EVALUATING)


def _refusals(graph_module: fx.GraphModule, allow: bool) -> Iterator[Fate]:
    for node in graph_module.graph.nodes:
        if node.target in _TRAINING:
            reason = (
                "no running statistics"
                if node.target is _aten._native_batch_norm_legit.no_stats
                else "training mode"
            )
            if not allow:
                raise FoldRefused(_module_path(node), reason)
            yield Fate(_module_path(node), "refused", _module_path(node), "", reason, None)


def _constant(graph_module: fx.GraphModule, node: object) -> Tensor | None:
    if not isinstance(node, fx.Node):
        return None
    value = operator.attrgetter(str(node.target))(graph_module)
    return value.detach() if isinstance(value, Tensor) else None


def _required(graph_module: fx.GraphModule, node: object) -> Tensor:
    value = _constant(graph_module, node)
    if value is None:
        raise ValueError(f"{node} is no constant of the graph")
    return value


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> AffineMap:
    weight, bias, mean, variance = (_constant(graph_module, argument) for argument in node.args[1:5])
    if mean is None or variance is None:
        raise FoldRefused(_module_path(node), "no running statistics")
    epsilon = node.args[6]
    return algebra.batch_norm(weight, bias, mean, variance, float(str(epsilon)))


def _fold_one(graph_module: fx.GraphModule, node: fx.Node, objective: Objective) -> Fate:
    """Folds one BatchNorm into the producer before it, through a ReLU if there is one."""
    name, affine = _module_path(node), _affine(graph_module, node)
    output = next(iter(node.users))
    source = node.args[0]
    if not isinstance(source, fx.Node):
        raise TypeError(f"{name}: its input is no value of the graph")
    relu = source if source.target is _aten.relu.default and len(source.users) == 1 else None
    producer = source.args[0] if relu is not None else source
    if not isinstance(producer, fx.Node) or not _is_producer(producer) or len(producer.users) != 1:
        _write_affine(graph_module, output, source, affine)
        return Fate(name, "kept", name, "multiply and add", "no producer can take it", None)
    _scale_producer(graph_module, producer, affine)
    if relu is None:
        output.replace_all_uses_with(producer)
        return Fate(name, "folded", _module_path(producer), "scaled weights", None, 0.0)
    ends = Interval(torch.zeros_like(affine.scale), torch.full_like(affine.scale, torch.inf))
    _write_clamp(graph_module, producer, output, ends.image(affine), objective)
    return Fate(name, "folded", _module_path(producer), "per-channel clamp", None, 0.0)


def _is_producer(node: fx.Node) -> bool:
    return node.target in (*_CONVOLUTIONS, *_TRANSPOSED, _aten.linear.default)


def _per_channel(graph_module: fx.GraphModule, name: str, values: Tensor, like: fx.Node) -> fx.Node:
    shape = [-1, *[1] * (like.meta["val"].dim() - 2)]
    return _register(graph_module, name, values.reshape(shape).to(like.meta["val"].dtype))


def _register(graph_module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    name = name.replace(".", "_")
    graph_module.register_buffer(name, value)
    return graph_module.graph.get_attr(name)


def _scale_producer(graph_module: fx.GraphModule, producer: fx.Node, affine: AffineMap) -> None:
    """Rewrites one call's weight and bias, on copies: others may share them."""
    weight = _required(graph_module, producer.args[1])
    arguments = [*producer.args, *[None] * 7][:9]
    transposed = producer.target in _TRANSPOSED
    groups = arguments[6]  # the same place for a convolution and a transposed one
    bias = _constant(graph_module, arguments[2])
    scaled = algebra.scale_output(
        weight, affine.scale, transposed=transposed, groups=groups if isinstance(groups, int) else 1
    )
    shift = affine.shift if bias is None else bias.double() * affine.scale + affine.shift
    with graph_module.graph.inserting_before(producer):
        new_weight = _register(graph_module, f"{producer.name}_weight", scaled.to(weight.dtype))
        new_bias = _register(graph_module, f"{producer.name}_bias", shift.to(weight.dtype))
    producer.args = (producer.args[0], new_weight, new_bias, *producer.args[3:])


def _write_affine(graph_module: fx.GraphModule, output: fx.Node, source: fx.Node, affine: AffineMap) -> None:
    with graph_module.graph.inserting_before(output.next):
        scale = _per_channel(graph_module, f"{output.name}_scale", affine.scale, output)
        shift = _per_channel(graph_module, f"{output.name}_shift", affine.shift, output)
    with graph_module.graph.inserting_before(shift.next):
        product = graph_module.graph.call_function(_aten.mul.Tensor, (source, scale))
    with graph_module.graph.inserting_before(product.next):
        total = graph_module.graph.call_function(_aten.add.Tensor, (product, shift))
    product.meta, total.meta = dict(output.meta), dict(output.meta)
    output.replace_all_uses_with(total)


def _write_clamp(
    graph_module: fx.GraphModule, producer: fx.Node, output: fx.Node, interval: Interval, objective: Objective
) -> None:
    """Puts one clip in the place of ReLU → BN (→ ReLU); after a max pool where speed is asked for."""
    after = next(iter(output.users))
    if len(output.users) == 1 and after.target is _aten.relu.default:
        zero = torch.zeros_like(interval.low)
        interval, output = interval.then(Interval(zero, zero + torch.inf)), after
    source = producer
    after = next(iter(output.users))
    if objective == "speed" and len(output.users) == 1 and after.target is _aten.max_pool2d.default:
        after.replace_input_with(output, producer)  # a monotone clip commutes with the pool
        source, output = after, after
    with graph_module.graph.inserting_before(output.next):
        low = _per_channel(graph_module, f"{output.name}_low", interval.low, output)
        high = _per_channel(graph_module, f"{output.name}_high", interval.high, output)
    with graph_module.graph.inserting_before(high.next):
        clamp = graph_module.graph.call_function(_aten.clamp.Tensor, (source, low, high))
    clamp.meta = dict(output.meta)
    output.replace_all_uses_with(clamp, delete_user_cb=lambda user: user is not clamp)
