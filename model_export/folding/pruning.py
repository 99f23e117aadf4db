"""Drops constant channels between two layers, exactly.

::

    layer A ─▶ clips, slopes, pools, affine maps, depthwise convs, flatten ─▶ layer B    each with one reader

    channel c is the constant k in front of B        a zero row of A's weight, or a clip whose ends meet
    A loses row c, what is between loses its c-th number, B loses column c and gains W·k in its bias

Zero padding is no k: a padded layer passes and takes only channels that are 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, fx, nn

from model_export.records import Objective

_aten = torch.ops.aten
_CONVOLUTIONS = (
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
)
_GROUPS = 6  # the place of a convolution's groups among its arguments
_LAYERS = (*_CONVOLUTIONS, _aten.linear.default)
# A constant stays what it is in these.
_POOLS = (
    _aten.max_pool1d.default,
    _aten.max_pool2d.default,
    _aten.max_pool3d.default,
    _aten.adaptive_max_pool2d.default,
    _aten.adaptive_avg_pool1d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.adaptive_avg_pool3d.default,
    _aten.clone.default,
)
_NUMBERWISE = (
    _aten.relu.default,
    _aten.relu6.default,
    _aten.hardtanh.default,
    _aten.hardsigmoid.default,
    _aten.leaky_relu.default,
    _aten.clamp.default,
)
_WITH_CONSTANTS = (_aten.clamp.Tensor, _aten.mul.Tensor, _aten.add.Tensor, _aten.prelu.default)
_FLATTENS = (_aten.view.default, _aten.flatten.using_ints)
# ONNX Runtime computes convolutions in blocks of so many channels; a count off it falls off the fast path.
_BLOCK = 8


@dataclass(frozen=True, eq=False)
class _Stretch:
    """What lies between two layers, and which channels are constant in front of the second.

    Attributes:
        first: Layer A.
        between: The operators between, in order.
        last: Layer B.
        constants: [C] float64, NaN where the channel varies.
        positions: How many of B's inputs one channel is (more than 1 after a flatten).
    """

    first: fx.Node
    between: tuple[fx.Node, ...]
    last: fx.Node
    constants: Tensor
    positions: int


def prune_channels(graph_module: fx.GraphModule, objective: Objective) -> int:
    """Drop every constant channel that can be dropped exactly; how many there were.

    Args:
        graph_module: Modified: smaller weights under the same names.
        objective: For speed, channel counts that are multiples of the block stay so.
    """
    pruner = _Pruner(graph_module)
    return sum(pruner.prune(stretch, objective) for stretch in list(pruner.stretches()))


class _Pruner:
    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._module = graph_module

    def stretches(self) -> Iterator[_Stretch]:
        for node in self._module.graph.nodes:
            if node.target in _LAYERS and self._is_owned(node) and self._groups(node) == 1:
                stretch = self._follow(node)
                if stretch is not None:
                    yield stretch

    def _follow(self, first: fx.Node) -> _Stretch | None:
        """From a layer to the next one; None if what is between does not take channels one by one."""
        constants: Tensor | None = self._rows(first)
        between: list[fx.Node] = []
        node = _only_user(first)
        while node is not None and (node.target not in _LAYERS or self._is_depthwise(node)):
            constants = None if constants is None else self._step(node, constants, first)
            between.append(node)
            node = _only_user(node)
        if node is None or constants is None or not self._is_owned(node) or self._groups(node) != 1:
            return None
        if not _has_flatten(between) and (first.target in _CONVOLUTIONS) != (node.target in _CONVOLUTIONS):
            return None  # their channels are on different axes
        positions = self._positions(node, between, len(constants))
        return _Stretch(first, tuple(between), node, constants, positions) if positions else None

    def _rows(self, layer: fx.Node) -> Tensor:
        """The bias where a row of the weight is zero; NaN elsewhere."""
        weight, bias = self._weight(layer), self._tensor(layer, 2)
        rows = weight.double().reshape(weight.shape[0], -1)
        values = torch.zeros(len(rows), dtype=torch.float64) if bias is None else bias.double()
        return torch.where((rows == 0).all(1), values, torch.nan)

    def _step(self, node: fx.Node, constants: Tensor, first: fx.Node) -> Tensor | None:
        """The constants behind an operator; None if channels do not pass it one by one."""
        if node.target in (*_POOLS, *_FLATTENS):
            return constants
        if node.target in _NUMBERWISE:
            return self._apply(node, constants, ())
        if node.target in _CONVOLUTIONS:
            return self._behind_depthwise(node, constants)
        if node.target not in _WITH_CONSTANTS:
            return None
        vectors = [self._vector(one, len(constants), first) for one in node.args[1:] if one is not None]
        return (
            None
            if any(vector is None for vector in vectors)
            else self._with_constants(node, constants, first)
        )

    def _behind_depthwise(self, node: fx.Node, constants: Tensor) -> Tensor:
        """k·ΣW + b; a zero kernel gives b whatever it reads."""
        weight, bias = self._weight(node).double(), self._tensor(node, 2)
        sums = weight.reshape(len(weight), -1).sum(1)
        passes = constants == 0 if _is_padded(node) else ~constants.isnan()
        result = torch.where(passes, constants * sums, torch.nan)
        result = torch.where((weight == 0).reshape(len(weight), -1).all(1), 0.0, result)
        return result if bias is None else result + bias.double()

    def _with_constants(self, node: fx.Node, constants: Tensor, first: fx.Node) -> Tensor:
        arguments = node.args[1:]
        vectors = tuple(
            None if one is None else self._vector(one, len(constants), first) for one in arguments
        )
        result = self._apply(node, constants, vectors)
        if node.target is _aten.clamp.Tensor and len(vectors) == 2:
            low, high = vectors
            if low is not None and high is not None:
                result = torch.where(low == high, low, result)
        return result

    def _apply(self, node: fx.Node, constants: Tensor, vectors: tuple[Tensor | None, ...]) -> Tensor:
        target = node.target
        if not callable(target):
            raise TypeError(f"{node.format_node()} is no call")
        # One row of channels: [1, C], as every per-channel operator takes it.
        arguments = vectors or node.args[1:]
        result: Tensor = target(constants.reshape(1, -1), *arguments)
        return result.reshape(-1)

    def _vector(self, argument: object, channels: int, first: fx.Node) -> Tensor | None:
        """A constant with one number for each of the layer's channels; None for anything else."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr" or len(argument.users) != 1:
            return None
        value = attrgetter(str(argument.target))(self._module)
        if not isinstance(value, Tensor) or value.numel() != channels:
            return None
        is_image = first.target in _CONVOLUTIONS
        on_its_axis = value.dim() == 1 or value.shape[1 if is_image else -1] == channels
        # [C] alone is PReLU's second axis, and anyone else's last.
        is_vector = on_its_axis and (
            value.dim() > 1 or is_image == (_reader(argument) is _aten.prelu.default)
        )
        return value.double().reshape(-1) if is_vector else None

    def _positions(self, last: fx.Node, between: list[fx.Node], channels: int) -> int:
        """How many of the last layer's inputs are one channel; 0 where that cannot be told."""
        inputs = self._weight(last).shape[1]
        flattens = [node for node in between if node.target in _FLATTENS]
        if not flattens:
            return int(inputs == channels)
        is_flat = last.target is _aten.linear.default and len(flattens) == 1 and _flattens_all(flattens[0])
        return inputs // channels if is_flat and inputs % channels == 0 else 0

    def prune(self, stretch: _Stretch, objective: Objective) -> int:
        """Drop the stretch's constant channels."""
        dead = ~stretch.constants.isnan()
        if _is_padded(stretch.last):
            dead &= stretch.constants == 0
        dead = _allowed(dead, objective)
        if not bool(dead.any()):
            return 0
        kept = ~dead
        self._shift_bias(stretch, dead)
        self._cut(stretch.first, 1, kept, axis=0)
        self._cut(stretch.first, 2, kept, axis=0)
        self._cut(stretch.last, 1, kept.repeat_interleave(stretch.positions), axis=1)
        for node in stretch.between:
            self._narrow(node, kept)
        return int(dead.sum())

    def _narrow(self, node: fx.Node, kept: Tensor) -> None:
        """Take the dropped channels out of an operator between two layers."""
        if node.target in _WITH_CONSTANTS:
            for place in range(1, len(node.args)):
                self._cut(node, place, kept, axis=None)
        elif node.target in _CONVOLUTIONS:
            self._cut(node, 1, kept, axis=0)
            self._cut(node, 2, kept, axis=0)
            node.update_arg(_GROUPS, int(kept.sum()))
        elif node.target is _aten.view.default:
            sizes = node.args[1]
            node.update_arg(1, [*sizes[:1], -1] if isinstance(sizes, list | tuple) else sizes)

    def _shift_bias(self, stretch: _Stretch, dead: Tensor) -> None:
        """b + W·k of the dropped channels."""
        weight, bias = self._weight(stretch.last), self._tensor(stretch.last, 2)
        constants = torch.where(dead, stretch.constants, 0.0).repeat_interleave(stretch.positions)
        sums = weight.double().reshape(*weight.shape[:2], -1).sum(-1)
        shift = sums @ constants
        if bias is not None:
            self._set(stretch.last, 2, (bias.double() + shift).to(bias.dtype))
        elif bool((shift != 0).any()):
            name = f"{str(self._argument(stretch.last, 1).target).replace('.', '_')}_bias"
            self._module.register_parameter(name, nn.Parameter(shift.to(weight.dtype), requires_grad=False))
            with self._module.graph.inserting_before(stretch.last):
                node = self._module.graph.get_attr(name)
            source, kernel, *_ = stretch.last.args
            stretch.last.args = (source, kernel, node, *stretch.last.args[3:])

    # --- constants of the graph ---

    def _argument(self, node: fx.Node, place: int) -> fx.Node:
        argument = node.args[place]
        if not isinstance(argument, fx.Node):
            raise TypeError(f"{node.format_node()} has no constant at {place}")
        return argument

    def _tensor(self, node: fx.Node, place: int) -> Tensor | None:
        argument = node.args[place] if len(node.args) > place else None
        value = attrgetter(str(argument.target))(self._module) if isinstance(argument, fx.Node) else None
        return value if isinstance(value, Tensor) else None

    def _weight(self, layer: fx.Node) -> Tensor:
        weight = self._tensor(layer, 1)
        if weight is None:
            raise TypeError(f"{layer.format_node()} has no constant weight")
        return weight

    def _is_owned(self, layer: fx.Node) -> bool:
        """Whether the layer's weights are constants that it alone reads."""
        constants = [one for one in layer.args[1:3] if isinstance(one, fx.Node)]
        return bool(constants) and all(one.op == "get_attr" and len(one.users) == 1 for one in constants)

    def _groups(self, layer: fx.Node) -> object:
        return layer.args[_GROUPS] if len(layer.args) > _GROUPS else 1

    def _is_depthwise(self, layer: fx.Node) -> bool:
        """Whether each channel goes through a convolution by itself."""
        if layer.target not in _CONVOLUTIONS or not self._is_owned(layer):
            return False
        channels, inputs, *_ = self._weight(layer).shape
        return inputs == 1 and self._groups(layer) == channels > 1

    def _cut(self, node: fx.Node, place: int, kept: Tensor, axis: int | None) -> None:
        value = self._tensor(node, place)
        if value is None:
            return
        if axis is None:
            axis = next(a for a, size in enumerate(value.shape) if size == len(kept))
        self._set(node, place, value.index_select(axis, torch.nonzero(kept).reshape(-1)))

    def _set(self, node: fx.Node, place: int, value: Tensor) -> None:
        """A constant's new value, in the place of the old: the original model keeps its own."""
        path, _, name = str(self._argument(node, place).target).rpartition(".")
        owner = self._module.get_submodule(path)
        setattr(owner, name, nn.Parameter(value.contiguous(), requires_grad=False))


def _only_user(node: fx.Node) -> fx.Node | None:
    users = [user for user in node.users if "sym_size" not in str(user.target)]
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def _is_padded(layer: fx.Node) -> bool:
    if layer.target not in _CONVOLUTIONS or len(layer.args) <= 4:
        return False
    padding = layer.args[4]
    # In words: "same" or "valid". A kernel of one position is padded with nothing, which does no harm here.
    return padding != "valid" and any(
        size != 0 for size in (padding if isinstance(padding, list | tuple) else [padding])
    )


def _allowed(dead: Tensor, objective: Objective) -> Tensor:
    """At least one channel stays; for speed, a multiple of the block stays one."""
    count, total = int(dead.sum()), len(dead)
    limit = min(count, total - 1)
    if objective == "speed" and total % _BLOCK == 0:
        limit -= limit % _BLOCK
    chosen = torch.nonzero(dead).reshape(-1)[:limit]
    return torch.zeros_like(dead).index_fill(0, chosen, True)


def _flattens_all(node: fx.Node) -> bool:
    """Whether this is [N, C, …] → [N, C·…]."""
    if node.target is _aten.flatten.using_ints:
        return list(node.args[1:]) in ([1], [1, -1])
    sizes = node.args[1]
    return isinstance(sizes, list | tuple) and len(sizes) == 2


def _has_flatten(nodes: list[fx.Node]) -> bool:
    return any(node.target in _FLATTENS for node in nodes)


def _reader(constant: fx.Node) -> object:
    (user,) = constant.users
    return user.target
