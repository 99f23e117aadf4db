"""A program as the fold sees it: values that may be stored in another form, and operations on them.

::

    fx graph                        network
    conv ─▶ bn ─▶ relu              Value(conv) ──view s·z+t──▶ Port of relu
         └▶ add                                 └──view 1·z+0──▶ Port of add

An affine map is no operation here: it is how a port looks at a value. So ``BN ∘ BN`` is one view, two views
of one value added are one view, and removing a BatchNorm is choosing a form of the value that all its ports
can read.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine, compressed
from model_export.folding.parallel import Term, merged_kernel
from model_export.folding.rules import (
    Call,
    Facts,
    Opaque,
    Rule,
    Stored,
    affine_map,
    rule_for,
    unknown,
)
from model_export.folding.rules.clip import Clip
from model_export.folding.rules.linear import Linear
from model_export.folding.rules.slopes import Slope
from model_export.records import Objective

_aten = torch.ops.aten
_CHECKS = (
    _aten._assert_tensor_metadata.default,
    _aten._assert_scalar.default,
    _aten._assert_async.msg,
)
# These read the size of a tensor, never its values: any form will do.
_SIZE_READERS = (
    _aten.sym_size.int,
    _aten.zeros_like.default,
    _aten.ones_like.default,
    _aten.full_like.default,
    _aten.new_zeros.default,
    _aten.new_ones.default,
    _aten.new_full.default,
    _aten.new_empty.default,
)


@dataclass(eq=False)
class Value:
    """A tensor of the original program.

    Attributes:
        node: Where the original computes it.
        operation: What computes it.
        known: Its constants, NaN where it varies.
        ports: Who reads it.
    """

    node: fx.Node
    operation: Operation
    known: Tensor
    ports: list[Port] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """Its number of axes."""
        return self.known.dim()


@dataclass(eq=False)
class Port:
    """An operation's look at a value: it sees ``view(value)``."""

    operation: Operation
    value: Value
    view: Affine

    def stored(self, form: Affine) -> Stored:
        """What the operation finds when the value is stored in this form."""
        seen, known = form.after(self.view.inverse()), self.known
        # The view itself is seen as the original exactly, without rounding; so is a constant stored as such.
        exact = (form.scale == self.view.scale) & (form.shift == self.view.shift) & (self.view.scale != 0)
        exact = exact | (seen(known) == known)
        scale, shift = torch.where(exact, 1.0, seen.scale), torch.where(exact, 0.0, seen.shift)
        return Stored(Affine(compressed(scale), compressed(shift)), known)

    @property
    def known(self) -> Tensor:
        """The constants that the operation sees."""
        return self.view(self.value.known)

    def form(self, seen: Affine) -> Affine:
        """The form of the value that the operation finds as ``seen``."""
        return seen.after(self.view)


@dataclass(eq=False)
class Operation:
    """An operator call, its inputs and its output (None: the graph's output, or a tuple)."""

    rule: Rule
    ports: list[Port] = field(default_factory=list)
    output: Value | None = None


@dataclass(frozen=True, eq=False)
class AffineSpot:
    """An affine map of the original: where it stood, and which value it looked at."""

    node: fx.Node
    operator: fx.Node
    value: Value
    affine: Affine


@dataclass(eq=False)
class Network:
    """The program: operations in order, and which view of which value each original node is.

    Attributes:
        facts: Of the program.
        operations: In the order of the program.
        views: Of each original node that is a value or an affine map of one.
        affine_spots: Where affine maps stood.
        successors: Of each value that was merged into another operation, that operation's output.
    """

    facts: Facts
    operations: list[Operation] = field(default_factory=list)
    views: dict[fx.Node, tuple[Value, Affine]] = field(default_factory=dict)
    affine_spots: list[AffineSpot] = field(default_factory=list)
    successors: dict[Value, Value] = field(default_factory=dict)

    def current(self, value: Value) -> Value:
        """The value, or what took its place when operations were merged."""
        while value in self.successors:
            value = self.successors[value]
        return value

    @property
    def values(self) -> Iterator[Value]:
        """All values, in order."""
        return (operation.output for operation in self.operations if operation.output is not None)


def read_network(graph: fx.Graph, facts: Facts, objective: Objective) -> Network:
    """The network of a functional graph.

    Args:
        graph: Of what `capture` gives.
        facts: Of the same program.
        objective: Two clips with only an affine map between become one; for speed only where that is a
            clip from below, which a ReLU can do: a clip from both sides costs more than what it replaces.
    """
    return _Reader(graph, facts, objective).read()


class _Reader:
    def __init__(self, graph: fx.Graph, facts: Facts, objective: Objective) -> None:
        self._graph, self._facts, self._objective = graph, facts, objective
        self._network = Network(facts)

    def read(self) -> Network:
        for node in self._graph.nodes:
            if not self._is_computed(node):
                continue
            if node.target in _CHECKS or self._is_tuple_of_parts(node) or not self._is_tensor_like(node):
                continue
            self._enter(node)
        return self._network

    def _is_computed(self, node: fx.Node) -> bool:
        """Whether the node is an input, an operator's result, or a buffer that the program writes."""
        if node.op == "get_attr" and not isinstance(node.meta.get("val"), Tensor):
            return False  # the branch of a conditional
        return not self._facts.is_constant(node)

    def _is_tensor_like(self, node: fx.Node) -> bool:
        return node.op == "output" or not isinstance(node.meta.get("val"), torch.SymInt | int | bool | None)

    def _is_tuple_of_parts(self, node: fx.Node) -> bool:
        """Whether a tuple-valued operator is covered by the rules of its items."""
        if not isinstance(node.meta.get("val"), tuple | list) or node.op == "output":
            return False
        return all(
            user.target is operator.getitem
            and (
                affine_map(self._item(user)) is not None or not isinstance(rule_for(self._item(user)), Opaque)
            )
            for user in node.users
        )

    def _item(self, node: fx.Node) -> Call:
        source = node.args[0]
        return Call(node, self._facts, source if isinstance(source, fx.Node) else None)

    def _call(self, node: fx.Node) -> Call:
        source = node.args[0] if node.target is operator.getitem else None
        is_item = isinstance(source, fx.Node) and self._is_tuple_of_parts(source)
        return self._item(node) if is_item else Call(node, self._facts)

    def _enter(self, node: fx.Node) -> None:
        call = self._call(node)
        if node.target in _SIZE_READERS or node.op in ("placeholder", "get_attr"):
            self._add(Opaque(Call(node, self._facts, values=())), [], node)
        elif node.op == "output":
            self._add(Opaque(call), [self.view(value) for value in call.values], None)
        elif not (self._enter_affine(call) or self._enter_sum(call) or self._enter_clip(call)):
            self._add(rule_for(call), [self.view(value) for value in call.values], node)

    def view(self, node: fx.Node) -> tuple[Value, Affine]:
        return self._network.views[node]

    def _add(self, rule: Rule, inputs: Sequence[tuple[Value, Affine]], node: fx.Node | None) -> None:
        operation = Operation(rule)
        for value, view in inputs:
            port = Port(operation, value, view)
            operation.ports.append(port)
            value.ports.append(port)
        if node is not None:
            rank = len(self._facts.sizes(node))
            known = (
                compressed(rule.known([port.known for port in operation.ports])) if inputs else unknown(rank)
            )
            operation.output = Value(node, operation, known)
            self._network.views[node] = (operation.output, Affine.identity(rank))
        self._network.operations.append(operation)

    def _enter_affine(self, call: Call) -> bool:
        affine = affine_map(call)
        if affine is None:
            return False
        value, view = self.view(call.values[0])
        self._network.views[call.node] = (value, affine.after(view))
        self._network.affine_spots.append(AffineSpot(call.node, call.operator, value, affine))
        return True

    # --- sums of two views of one value, and of parallel linear branches ---

    def _enter_sum(self, call: Call) -> bool:
        weight = _sum_weight(call)
        first, second = (call.node.args[0], call.node.args[1]) if weight is not None else (None, None)
        if weight is None or first not in self._network.views or second not in self._network.views:
            return False
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return False
        if self._facts.sizes(first) != self._facts.sizes(second):
            return False
        (left, left_view), (right, right_view) = self.view(first), self.view(second)
        scaled = Affine(right_view.scale * weight, right_view.shift * weight)
        if left is right:
            total = Affine(left_view.scale + scaled.scale, left_view.shift + scaled.shift)
            self._network.views[call.node] = (left, total)
            return True
        return self._merge(call, (first, left, left_view), (second, right, scaled))

    def _merge(self, call: Call, *branches: tuple[fx.Node, Value, Affine]) -> bool:
        """Replace parallel linear branches of one value by one linear layer, if they are."""
        layers = [
            value.operation
            for node, value, _ in branches
            if isinstance(value.operation.rule, Linear) and self._is_only_used_through(value.node, node)
        ]
        if not layers:
            return False
        base = layers[0].ports[0]
        terms = [self._term(base, value, view, layers) for _, value, view in branches]
        if any(term is None for term in terms):
            return False
        kernel = merged_kernel([term for term in terms if term is not None])
        if kernel is None:
            return False
        source = layers[0].rule.call.values[0]
        merged = Call(call.node, self._facts, values=(source,))
        self._replace(layers, Linear(merged, kernel), (base.value, base.view))
        return True

    def _term(self, base: Port, value: Value, view: Affine, layers: list[Operation]) -> Term | None:
        """A branch as kernel (None: the identity) and what is done to its result."""
        rule = value.operation.rule
        if value.operation in layers and isinstance(rule, Linear):
            port = value.operation.ports[0]
            same = port.value is base.value and port.view.same(base.view)
            return Term(rule.kernel, view) if same else None
        if value is not base.value:
            return None
        if view.same(base.view):
            return Term(None, Affine.identity(value.rank))
        return None if bool((base.view.scale == 0).any()) else Term(None, view.after(base.view.inverse()))

    def _is_only_used_through(self, node: fx.Node, last: fx.Node) -> bool:
        """Whether a value is used once, through affine maps used once, up to ``last``, used once."""
        while len(node.users) == 1:
            if node is last:
                return True
            node = next(iter(node.users))
        return False

    def _replace(self, operations: Sequence[Operation], rule: Rule, source: tuple[Value, Affine]) -> None:
        """One operation in the place of several that nothing else reads."""
        for operation in operations:
            self._network.operations.remove(operation)
            for port in operation.ports:
                port.value.ports.remove(port)
        self._add(rule, [source], rule.call.node)
        merged = self._network.operations[-1].output
        for operation in operations:
            if operation.output is not None and merged is not None:
                self._network.successors[operation.output] = merged

    # --- clips ---

    def _enter_clip(self, call: Call) -> bool:
        """A clip of a clip, or of a slope whose knee it cuts off, with only affine maps between, as one."""
        rule = rule_for(call)
        if not isinstance(rule, Clip) or len(call.values) != 1:
            return False
        value, view = self.view(call.values[0])
        first, between = value.operation, rule.before.after(view)
        if not self._is_only_used_through(value.node, call.values[0]):
            return False
        if isinstance(first.rule, Clip):
            interval = first.rule.interval.image(between).then(rule.interval)
            view = between.after(first.rule.before)
        elif isinstance(first.rule, Slope):
            interval, straight = rule.interval, first.rule.straightened(between, rule.interval)
            if straight is None:
                return False
            view = straight
        else:
            return False
        if self._objective == "speed" and not interval.is_from_below:
            return False
        merged = Call(call.node, self._facts, values=first.rule.call.values)
        port = first.ports[0]
        clip = Clip(merged, interval, Affine.identity(value.rank), is_whole=False)
        self._replace([first], clip, (port.value, view.after(port.view)))
        return True


def _sum_weight(call: Call) -> float | None:
    signs = {_aten.add.Tensor: 1.0, _aten.sub.Tensor: -1.0}
    target = call.operator.target
    sign = signs.get(target) if isinstance(target, torch._ops.OpOverload) else None
    alpha = call.argument("alpha") if sign is not None else None
    return sign * alpha if sign is not None and isinstance(alpha, int | float) else None
