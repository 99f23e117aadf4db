"""One operator call of a program, with everything a rule may ask about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """What one run of the program on its example inputs showed, and which values are constants.

    Attributes:
        results: Of each node: sizes of its tensor, its number, or None.
        constants: Computes the values of nodes that depend on no input: a weight as the model has it, a
            formula in float64.
    """

    results: Mapping[fx.Node, Sizes | int | None]
    constants: Mapping[fx.Node, Callable[[], Tensor]]

    def is_constant(self, node: fx.Node) -> bool:
        """Whether the node depends on no input."""
        return node in self.constants

    def constant(self, node: fx.Node) -> Tensor | None:
        """The float64 value of a node that depends on no input; None for any other."""
        value = self.weight(node)
        return value.double() if value is not None and value.is_floating_point() else value

    def weight(self, node: fx.Node) -> Tensor | None:
        """The same, a weight in its own precision: no copy of it is made."""
        compute = self.constants.get(node)
        return None if compute is None else compute()

    def sizes(self, node: fx.Node) -> Sizes:
        """The example's sizes of a tensor-valued node."""
        sizes = self.results.get(node)
        return sizes if isinstance(sizes, tuple) else ()

    def values(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The tensors among a node's inputs that are no constants."""
        inputs = node.all_input_nodes
        return tuple(
            one for one in inputs if isinstance(self.results.get(one), tuple) and not self.is_constant(one)
        )


class Call:
    """One call: its arguments by name, the values among them, and a way to run it alone.

    Args:
        node: The node; of a tuple-valued operator, the item that is read.
        facts: Of the program.
        operator: The node of the operator itself, if ``node`` only reads an item of it.
        values: The inputs, if they are not those of the node itself: one call in the place of several.
    """

    def __init__(
        self,
        node: fx.Node,
        facts: Facts,
        operator: fx.Node | None = None,
        values: tuple[fx.Node, ...] | None = None,
    ) -> None:
        self.node = node
        self.operator = operator or node
        self._facts = facts
        self.values = facts.values(self.operator) if values is None else values
        self._arguments = _by_name(self.operator)

    @property
    def sizes(self) -> Sizes:
        """The result's sizes in the example."""
        return self._facts.sizes(self.node)

    @property
    def dtype(self) -> torch.dtype | None:
        """The result's dtype."""
        value = self.node.meta.get("val")
        return value.dtype if isinstance(value, Tensor) else None

    def free_axes(self, node: fx.Node | None = None) -> set[int]:
        """The axes whose size is not fixed: of an input, or of the result."""
        value = (node or self.node).meta.get("val")
        if not isinstance(value, Tensor):
            return set()
        return {axis for axis, size in enumerate(value.shape) if not isinstance(size, int)}

    def input_sizes(self, index: int = 0) -> Sizes:
        """The sizes of an input value in the example."""
        return self._facts.sizes(self.values[index])

    def argument(self, name: str) -> Any:
        """The argument of this name as the graph has it, or its default."""
        return self._arguments[name]

    def constant(self, name: str) -> Tensor | None:
        """The constant tensor [any shape], float64, given as this argument; None if there is none."""
        argument = self._arguments[name]
        return self._facts.constant(argument) if isinstance(argument, fx.Node) else None

    def weight(self, name: str) -> Tensor | None:
        """The same in its own precision, which float64 factors widen: not modified, not copied."""
        argument = self._arguments[name]
        return self._facts.weight(argument) if isinstance(argument, fx.Node) else None

    def is_constant(self, name: str) -> bool:
        """Whether the argument is a number, absent, or a constant tensor."""
        argument = self._arguments[name]
        return not isinstance(argument, fx.Node) or self._facts.is_constant(argument)

    def run(self, *values: Tensor) -> Tensor:
        """The result for these input values, at the example's sizes.

        Args:
            values: One a value, of that value's sizes.
        """
        given: dict[fx.Node, object] = dict(zip(self.values, values, strict=True))

        def concrete(argument: fx.Node) -> Any:
            if argument in given:
                return given[argument]
            constant = self._facts.constant(argument)
            return self._facts.results[argument] if constant is None else constant

        target, operator = self.operator.target, self.operator
        if not callable(target):
            raise TypeError(f"{operator.format_node()} is no call")
        args, kwargs = fx.map_arg((operator.args, operator.kwargs), concrete)
        with torch.no_grad():
            result = target(*args, **kwargs)
        return _item(result, self.node) if self.node is not operator else result


def _item(result: Sequence[Tensor], node: fx.Node) -> Tensor:
    index = node.args[1]
    if not isinstance(index, int):
        raise TypeError(f"{node.format_node()} reads no item")
    return result[index]


def _by_name(node: fx.Node) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    named = {argument.name: argument.default_value for argument in schema.arguments}
    named.update(zip(named, node.args, strict=False))
    return named | dict(node.kwargs)
