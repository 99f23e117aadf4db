"""Counts the per-channel affine maps of a program, on its values: what the fold's own count is held against.

::

    counted       batch_norm · tracked instance_norm · × ÷ + − by a constant · a depthwise 1×1 conv
    one map       a chain of these, each with no other use: (x/255 − mean)/std is one
    not counted   × ±1 and negation (a sign) · + a constant that varies along two axes (a constant map)
                  · arithmetic on constants alone · arithmetic between two values that depend on the input

A constant is a value that does not depend on the program's inputs, whatever operators made it. Whether it
varies along one axis or two is read from its numbers: a shift spread out over the image is still a shift.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

_aten = torch.ops.aten

_ADDING = {"add", "add_", "sub", "sub_", "rsub"}
_MULTIPLYING = {"mul", "mul_", "div", "div_"}
_TURNING = {"neg", "neg_"}
_NORMALISING = {"batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "instance_norm"}
_FUSED = {"addcmul", "addcmul_", "addcdiv", "lerp"}
_SAME_VALUE = {"alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "_to_copy", "to"}
_HEAVY = {
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "einsum",
}
# Their outputs depend on an input's size or kind alone.
_SIZES = {
    "sym_size",
    "sym_numel",
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
}


@dataclass(frozen=True, slots=True)
class Census:
    """What a program computes, as far as a fold may change it.

    Attributes:
        affine_maps: Per-channel affine maps.
        constant_maps: Additions of a constant that varies along more than one axis.
        signs: Multiplications by ±1 a channel, and negations.
        heavy: Convolutions and matrix products.
        macs: Their multiply-adds, for the inputs it was counted with.
        allowance: The multiply-adds if each convolution had a channel of ones beside each group.
        activations: Operators that bend values (clips, PReLUs, GELU, …).
    """

    affine_maps: int
    constant_maps: int
    signs: int
    heavy: int
    macs: int
    allowance: int
    activations: int


_BENDING = {
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "hardtanh_",
    "hardsigmoid",
    "clamp",
    "clamp_",
    "clamp_min",
    "clamp_max",
    "minimum",
    "maximum",
    "leaky_relu",
    "leaky_relu_",
    "prelu",
    "_prelu_kernel",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "elu",
    "mish",
    "softplus",
    "hardswish",
    "where",
}


class _Recorder(fx.Interpreter):
    """Runs a program's graph and keeps every node's value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, a copy: an in-place operator later does not reach it."""
        value = super().run_node(n)
        self.values[n] = value.clone() if isinstance(value, Tensor) else value
        return value


def _flat_inputs(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> list[Any]:
    """What the graph's placeholders take, in order: parameters, buffers, constants, inputs."""
    given = iter(pytree.tree_leaves(inputs))
    flat: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            flat.append(next(given))
        else:
            stored = {**program.constants, **program.state_dict}
            flat.append(stored[str(spec.target)])
    return flat


def _name(node: fx.Node) -> str:
    """The operator without its overload: ``add`` for ``aten.add.Tensor``."""
    if node.op != "call_function":
        return node.op
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]


class Reading:
    """A program, run once on its example inputs, with what depends on the input marked."""

    def __init__(self, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> None:
        recorder = _Recorder(program.graph_module)
        with torch.no_grad():
            recorder.run(*_flat_inputs(program, inputs))
        self.graph = program.graph
        self.values = recorder.values
        user_inputs = set(program.graph_signature.user_inputs)
        self._live: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.name in user_inputs or self._depends(node):
                self._live.add(node)

    def _depends(self, node: fx.Node) -> bool:
        return _name(node) not in _SIZES and any(n in self._live for n in node.all_input_nodes)

    def is_live(self, argument: object) -> bool:
        """Whether the argument depends on the program's inputs."""
        return isinstance(argument, fx.Node) and argument in self._live

    def value(self, argument: object) -> Any:
        """The argument's value."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def __iter__(self) -> Iterator[fx.Node]:
        """Over the operators that depend on the inputs."""
        return (n for n in self.graph.nodes if n.op == "call_function" and n in self._live)


def census(program: ExportedProgram, inputs: tuple[Tensor, ...] | None = None) -> Census:
    """What ``program`` computes.

    Args:
        program: As `torch.export.export` gives it, decomposed or not.
        inputs: To run it on; None: its own example inputs.
    """
    if inputs is None:
        if program.example_inputs is None:
            raise ValueError("the program has no example inputs: give some")
        inputs = tuple(program.example_inputs[0])
    reading = Reading(program, inputs)
    kinds = {node: _kind(node, reading) for node in reading}
    heavy = [node for node in reading if _name(node) in _HEAVY]
    return Census(
        affine_maps=_count_chains(reading, kinds),
        constant_maps=sum(kind == "constant map" for kind in kinds.values()),
        signs=sum(kind == "sign" for kind in kinds.values()),
        heavy=len(heavy),
        macs=sum(_macs(node, reading, extra=0) for node in heavy),
        allowance=sum(_macs(node, reading, extra=1) for node in heavy),
        activations=sum(_name(node) in _BENDING for node in reading),
    )


def count(program: ExportedProgram) -> int:
    """The per-channel affine maps of ``program``."""
    return census(program).affine_maps


def _kind(node: fx.Node, reading: Reading) -> str | None:
    """``affine``, ``sign``, ``constant map``, ``same``, or None for everything else."""
    name = _name(node)
    if name in _TURNING:
        return "sign"
    if name in _SAME_VALUE or _reads_normalised(node):
        return "same"
    if name in _NORMALISING:
        return "affine" if _is_constant_map(node, reading) else None
    if name in _FUSED:
        live = sum(reading.is_live(argument) for argument in node.args)
        return "affine" if live == 1 and reading.is_live(node.args[0 if name == "lerp" else 1]) else None
    if name in _ADDING or name in _MULTIPLYING:
        return _arithmetic(node, name, reading)
    return "affine" if name in _HEAVY and _is_disguised(node, reading) else None


def _reads_normalised(node: fx.Node) -> bool:
    """Whether the node is the image out of what a decomposed BatchNorm gives."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and _name(source) in _NORMALISING


def _is_constant_map(node: fx.Node, reading: Reading) -> bool:
    """Whether a normalisation uses running statistics, and not those of its input."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    uses_own = given.get("training", given.get("use_input_stats", False))
    return not uses_own and reading.value(given.get("running_mean")) is not None


def _arithmetic(node: fx.Node, name: str, reading: Reading) -> str | None:
    left, right = node.args[:2]
    if reading.is_live(left) == reading.is_live(right):
        return "affine" if left is right and name in _ADDING else None  # z + z is 2·z
    if name.startswith("div") and reading.is_live(right):
        return None  # constant / z
    constant = torch.as_tensor(reading.value(right if reading.is_live(left) else left)).double()
    if name in _MULTIPLYING:
        return "sign" if bool((constant.abs() == 1).all()) else "affine"
    reversed_sign = reading.is_live(right) if name.startswith("sub") else name == "rsub"
    if not constant.any():
        return "sign" if reversed_sign else "same"
    return "constant map" if _varying_axes(constant) > 1 else "affine"


def _varying_axes(constant: Tensor) -> int:
    """Along how many axes the numbers differ by more than rounding."""
    resolution = 1e-12 * float(constant.abs().max())
    spreads = (constant.amax(axis) - constant.amin(axis) for axis in range(constant.dim()))
    return sum(bool((spread > resolution).any()) for spread in spreads)


def _is_disguised(node: fx.Node, reading: Reading) -> bool:
    """Whether a convolution is one number a channel: depthwise, 1×1, not strided."""
    if not _name(node).startswith("conv"):
        return False
    weight, source = reading.value(node.args[1]), reading.value(node.args[0])
    if not isinstance(weight, Tensor) or any(size != 1 for size in weight.shape[2:]):
        return False
    depthwise = weight.shape[1] == 1 and weight.shape[0] == source.shape[1] > 1
    return depthwise and reading.values[node].shape == source.shape


def _count_chains(reading: Reading, kinds: dict[fx.Node, str | None]) -> int:
    """Chains of affine operators, each feeding only the next, that do more than turn the sign."""
    chains: dict[fx.Node, fx.Node] = {}
    counted: set[fx.Node] = set()
    for node in reading:
        if kinds[node] is None:
            continue
        source = next(n for n in node.all_input_nodes if reading.is_live(n))
        alone = len(source.users) == 1 and kinds.get(source) is not None
        chains[node] = chains[source] if alone else node
        if kinds[node] == "affine":
            counted.add(chains[node])
    return len(counted)


def _macs(node: fx.Node, reading: Reading, extra: int) -> int:
    """Multiply-adds; ``extra`` channels beside each group's inputs."""
    output = reading.values[node]
    if _name(node).startswith("conv"):
        weight, source = reading.value(node.args[1]), reading.value(node.args[0])
        transposed = "transpose" in _name(node) or (
            _name(node) == "convolution" and bool(reading.value(node.args[6]))
        )
        taps = weight[0, 0].numel()
        if transposed:
            positions = source[0, 0].numel() * source.shape[0]
            groups = output.shape[1] // weight.shape[1]
            return int(positions * taps * weight.shape[1] * (weight.shape[0] + extra * groups))
        return int(output.numel() * taps * (weight.shape[1] + extra))
    inner = reading.value(node.args[1 if _name(node) == "addmm" else 0]).shape[-1]
    return int(output.numel() * (inner + extra))
