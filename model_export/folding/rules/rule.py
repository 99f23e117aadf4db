"""What a rule for one operator is: how the forms of its inputs and of its output go together.

A tensor v of the original program may be *stored* in another form, ``v′ = f(v)``, an affine map a channel.
Whoever reads it must know f; whoever writes it must be able to. A rule says which forms go together::

    Absorber    reads any form, writes any form, one independent of the other    conv, linear
    Carrier     the form of the output follows from those of the inputs          relu, pools, add, …
    Rearranger  a Carrier that only moves values: each input by itself           view, concat, slice, …
    Opaque      reads and writes only what the original has                      gelu, softmax, outputs

and what the rewritten operator costs: the `Remainder` it leaves behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, fx

from model_export.folding.algebra import Affine
from model_export.folding.rules.call import Call

# A value near 1 that is stored beside a shift so many times as large has lost that many units of its last
# place when it is read back: such a channel takes another form.
MAX_OFFSET = 1e3


class Remainder(Enum):
    """What a fold can leave behind. Only a MAP counts as a leftover affine map."""

    MAP = "affine map"
    SIGN = "sign"
    CLAMP = "per-channel clamp"
    SLOPE = "per-channel PReLU"
    BORDER = "constant map"
    SCALAR = "clip at other ends"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One remainder and how many elements of one example it runs over."""

    kind: Remainder
    elements: int


Cost = tuple[Leftover, ...]
FREE: Cost = ()


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A tensor z as a reader finds it: ``z′ = form(z)``; and the values of z that are constants.

    Attributes:
        form: Unknown shift where z′ holds nothing of use (then z must be a known constant there).
        known: The constants, NaN where z varies; broadcasts with z.
    """

    form: Affine
    known: Tensor

    @property
    def constant(self) -> Tensor:
        """Where z is a known constant."""
        return ~self.known.isnan()

    def reading(self) -> Affine | None:
        """The map back, ``z = s·z′ + t`` (s = 0 for constants); None where it is lost or ill-conditioned."""
        back = self.form.inverse()
        lost = back.shift.isnan() & self.constant
        scale = torch.where(lost, 0.0, back.scale)
        shift = torch.where(lost, self.known, back.shift)
        offset = torch.where(self.constant, 0.0, back.shift.abs())
        drowned = bool((offset > MAX_OFFSET).any())
        return None if drowned or bool(shift.isnan().any()) else Affine(scale, shift)


class Writer(Protocol):
    """What a rule may ask of the graph that is being written."""

    def again(self, call: Call, inputs: Sequence[fx.Node]) -> fx.Node:
        """The same operator on other inputs."""

    def call(self, call: Call, target: object, *args: object) -> fx.Node:
        """Another operator in the place of ``call``."""

    def constant(self, call: Call, name: str, compute: Callable[[torch.dtype], Tensor]) -> fx.Node:
        """A new constant.

        Args:
            call: The operator it is for.
            name: What it is to that.
            compute: Gives it in a dtype, from float64 and rounded once; may be called more than once.
        """


class Rule(ABC):
    """The rule of one operator call."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def known(self, inputs: Sequence[Tensor]) -> Tensor:
        """The result's constants, given those of the inputs (NaN: varies)."""
        return unknown(len(self.call.sizes))

    @abstractmethod
    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The operator, reading and writing these forms."""


class Absorber(Rule):
    """An operator whose input and output forms are independent of each other."""

    @abstractmethod
    def read(self, index: int, stored: Stored) -> Cost | None:
        """The cost of reading the input in this form; None: impossible."""

    @abstractmethod
    def write(self, form: Affine, known: Tensor) -> Cost | None:
        """The cost of writing the result in this form; None: impossible."""


class Carrier(Rule):
    """An operator whose output form follows from its input forms."""

    @abstractmethod
    def forward(self, stored: Sequence[Stored]) -> Affine | None:
        """The form of the result, if it has one."""

    @abstractmethod
    def backward(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """Input forms, one an input, that give this form. NaN: any will do. Best first."""

    def costs(
        self, stored: Sequence[Stored], forms: Sequence[Affine], known: Tensor
    ) -> Iterator[tuple[int, Cost]]:
        """Of the forms of the result, by index, those that can be had from these inputs, and their cost."""
        arriving = self.forward(stored)
        for j, form in enumerate(forms):
            cost = self.cost_of(stored, arriving, form, known)
            if cost is not None:
                yield j, cost

    def cost_of(
        self, stored: Sequence[Stored], arriving: Affine | None, form: Affine, known: Tensor
    ) -> Cost | None:
        """The cost of one form, given what `forward` says; free where that is the form."""
        return FREE if arriving is not None and claims(arriving, form, known) else None

    def cost(self, stored: Sequence[Stored], form: Affine, known: Tensor) -> Cost | None:
        """The cost of going from these forms to that one; None: impossible."""
        return next((cost for _, cost in self.costs(stored, [form], known)), None)

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The operator, reading and writing these forms."""
        return writer.again(self.call, inputs)

    def wishes(self, form: Affine) -> Iterator[tuple[Affine, ...]]:
        """Input forms worth considering for this form of the result."""
        yield from self.backward(form)

    def output_suggestions(self) -> Iterator[Affine]:
        """Forms of the result that make this operator cheap."""
        yield from ()

    def near(self, form: Affine) -> Iterator[Affine]:
        """Forms close to this one that can pass, where it cannot itself: what remains is less than a map."""
        yield from ()

    def company(self, index: int, stored: Stored) -> Iterator[Affine]:
        """Forms of the result worth considering when one input is stored so: the others may follow."""
        yield from ()

    def complement(self, index: int, stored: Stored, form: Affine) -> Iterator[tuple[int, Affine]]:
        """What another input, by its index, must be for the result to be ``form``."""
        yield from ()


class Rearranger(Carrier):
    """A Carrier of which each input can be judged by itself."""

    def costs(
        self, stored: Sequence[Stored], forms: Sequence[Affine], known: Tensor
    ) -> Iterator[tuple[int, Cost]]:
        """Free where every part of a form is what its input has."""
        for j, form in enumerate(forms):
            wanted = next(self.backward(form), None)
            if wanted is not None and all(fits(s, w) for s, w in zip(stored, wanted, strict=True)):
                yield j, FREE


def claims(arriving: Affine, form: Affine, known: Tensor) -> bool:
    """Whether what arrives is what ``form`` says; where that says nothing of a constant, anything is."""
    free = ~known.isnan() & form.shift.isnan()
    if bool(free.any()):
        form = Affine(
            torch.where(free, arriving.scale, form.scale), torch.where(free, arriving.shift, form.shift)
        )
    return arriving.same(form, known)


def fits(stored: Stored, wanted: Affine) -> bool:
    """Whether a stored form is the wanted one, wherever that is not NaN."""
    scale, shift = stored.form.scale, stored.form.shift
    free = wanted.shift.isnan() | wanted.scale.isnan()
    filled = Affine(torch.where(free, scale, wanted.scale), torch.where(free, shift, wanted.shift))
    return stored.form.same(filled, stored.known)


class Opaque(Absorber):
    """An operator nothing passes: it reads and writes what the original has."""

    def read(self, index: int, stored: Stored) -> Cost | None:
        """Free in the original's own form."""
        return FREE if stored.form.same(Affine.identity(stored.known.dim()), stored.known) else None

    def write(self, form: Affine, known: Tensor) -> Cost | None:
        """Free in the original's own form."""
        return FREE if form.same(Affine.identity(known.dim()), known) else None

    def emit(
        self, writer: Writer, inputs: Sequence[fx.Node], stored: Sequence[Stored], form: Affine
    ) -> fx.Node:
        """The operator as it was."""
        return writer.again(self.call, inputs)


def unknown(rank: int) -> Tensor:
    """No constants: NaN, broadcast over a tensor of this rank."""
    return torch.full([1] * rank, torch.nan, dtype=torch.float64)


def elements(call: Call) -> int:
    """How many elements the call's result has in the example, one instance."""
    sizes = call.sizes
    total = 1
    for size in sizes[1:]:
        total *= size
    return total


RuleFactory = Callable[[Call], Rule | None]
_RULES: dict[object, RuleFactory] = {}


def register(*targets: object) -> Callable[[RuleFactory], RuleFactory]:
    """Enter a rule for these operators: a function of the call, None where the rule does not apply to it."""

    def enter(factory: RuleFactory) -> RuleFactory:
        for target in targets:
            if target in _RULES:
                raise ValueError(f"{target} has a rule already")
            _RULES[target] = factory
        return factory

    return enter


def rule_for(call: Call) -> Rule:
    """The rule of this call; `Opaque` for operators without one."""
    factory = _RULES.get(call.operator.target)
    return (factory(call) if factory is not None else None) or Opaque(call)


def covered_operators() -> tuple[str, ...]:
    """The names of all operators that have a rule."""
    return tuple(sorted(str(target) for target in _RULES))
