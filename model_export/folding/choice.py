"""The choice of forms: the cheapest consistent one, exactly, as an integer program.

::

    x[v, i]      value v is produced in form i                      one i a value
    y[p, i]      port p reads its value in form i                   one i a port
    m[v, i, j]   an affine map makes form j of v from form i        only from the form produced
    t[o, …]      operation o goes from these input forms to that output form

    y[p, j] ≤ x[v, j] + Σᵢ m[v, i, j]        a form that is read is produced, or made by a map

Every per-channel map that remains is some m; its price outweighs all else under ``fewest``. A layer's forms
are independent, so the program falls apart at every layer and stays easy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from torch import Tensor

from model_export.folding.algebra import Affine, compressed, varying_axes
from model_export.folding.forms import Forms
from model_export.folding.network import Network, Operation, Port, Value
from model_export.folding.placement import READ_IN_OTHER_FORM, UNUSUAL_AXES, WRITE_IN_OTHER_FORM, price
from model_export.folding.rules import (
    Absorber,
    Carrier,
    Cost,
    Leftover,
    Rearranger,
    Remainder,
    Stored,
    fits,
)
from model_export.folding.rules.rule import MAX_OFFSET
from model_export.folding.sinking import where_it_sinks
from model_export.records import Objective


@dataclass(frozen=True, eq=False)
class Choice:
    """The forms chosen.

    Attributes:
        produced: Of each value.
        read: Of each port's value.
        maps: The affine maps left: value, from the produced form, to this form.
    """

    produced: dict[Value, Affine]
    read: dict[Port, Affine]
    maps: tuple[LeftMap, ...]


@dataclass(frozen=True, eq=False)
class LeftMap:
    """One map that remains: ``form(v) = affine(produced(v))``."""

    value: Value
    form: Affine
    affine: Affine
    kind: Remainder


@dataclass
class _Program:
    """An integer program in the making: minimise ``cost·x``, x ∈ {0, 1}."""

    costs: list[float] = field(default_factory=list)
    rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def variable(self, cost: float = 0.0) -> int:
        self.costs.append(cost)
        return len(self.costs) - 1

    def constrain(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append((terms, low, high))

    def exactly_one(self, variables: Iterable[int]) -> None:
        self.constrain(dict.fromkeys(variables, 1.0), 1, 1)

    def equal(self, variable: int, others: Iterable[int]) -> None:
        self.constrain({variable: -1.0} | dict.fromkeys(others, 1.0), 0, 0)

    def at_most(self, variable: int, others: Iterable[int]) -> None:
        """variable ≤ Σ others."""
        self.constrain({variable: -1.0} | dict.fromkeys(others, 1.0), 0, np.inf)

    def forbid(self, variable: int) -> None:
        self.constrain({variable: 1.0}, 0, 0)

    def solve(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """The best x."""
        entries = [
            (row, column, value)
            for row, (terms, _, _) in enumerate(self.rows)
            for column, value in terms.items()
        ]
        rows, columns, values = zip(*entries, strict=True)
        matrix = coo_array((values, (rows, columns)), shape=(len(self.rows), len(self.costs)))
        low, high = ([row[side] for row in self.rows] for side in (1, 2))
        result = milp(
            np.array(self.costs),
            integrality=np.ones(len(self.costs)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix.tocsr(), low, high),
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            raise RuntimeError(f"no consistent choice of forms: {result.message}")
        return np.asarray(result.x > 0.5)


def choose_forms(network: Network, forms: Forms, objective: Objective) -> Choice:
    """The cheapest consistent choice among these forms."""
    return _Chooser(network, forms, objective).choose()


class _Chooser:
    def __init__(self, network: Network, forms: Forms, objective: Objective) -> None:
        self._network, self._forms, self._objective = network, forms, objective
        self._program = _Program()
        self._x: dict[Value, list[int]] = {}
        self._y: dict[Port, list[int]] = {}
        self._m: dict[tuple[Value, int, int], tuple[int, Affine, Remainder]] = {}

    def choose(self) -> Choice:
        for value in self._network.values:
            self._add_value(value)
        for operation in self._network.operations:
            self._add_operation(operation)
        return self._read(self._program.solve())

    # --- values: what is produced, what is read, what is made between ---

    def _add_value(self, value: Value) -> None:
        forms, program = self._forms[value], self._program
        self._x[value] = [program.variable(WRITE_IN_OTHER_FORM if i else 0.0) for i in range(len(forms))]
        program.exactly_one(self._x[value])
        for port in value.ports:
            self._y[port] = [program.variable(READ_IN_OTHER_FORM if i else 0.0) for i in range(len(forms))]
            program.exactly_one(self._y[port])
        self._add_maps(value)
        for j in range(len(forms)):
            made = [self._m[value, i, j][0] for i in range(len(forms)) if (value, i, j) in self._m]
            for port in value.ports:
                program.at_most(self._y[port][j], [self._x[value][j], *made])

    def _add_maps(self, value: Value) -> None:
        forms = self._forms[value]
        for i, j in product(range(len(forms)), repeat=2):
            affine = conversion(forms[i], forms[j], value.known) if i != j else None
            if affine is None:
                continue
            kind = _kind(affine)
            if kind is Remainder.SIGN:
                affine = Affine(torch.sign(affine.scale), torch.zeros_like(affine.shift))
            size = int(np.prod(value.operation.rule.call.sizes[1:]))
            if not varying_axes(affine.scale, affine.shift) <= {1}:
                size *= UNUSUAL_AXES
            cost = (Leftover(kind, size),)
            variable = self._program.variable(self._price(cost))
            self._program.at_most(variable, [self._x[value][i]])
            self._m[value, i, j] = (variable, affine, kind)

    def _price(self, cost: Cost) -> float:
        return price(cost, self._objective)

    def _charge(self, variable: int, cost: Cost | None) -> None:
        if cost is None:
            self._program.forbid(variable)
        else:
            self._program.costs[variable] += self._price(cost)

    # --- operations ---

    def _add_operation(self, operation: Operation) -> None:
        rule = operation.rule
        if isinstance(rule, Absorber):
            self._add_absorber(operation, rule)
        elif isinstance(rule, Rearranger):
            self._add_rearranger(operation, rule)
        elif isinstance(rule, Carrier):
            self._add_carrier(operation, rule)

    def _add_absorber(self, operation: Operation, rule: Absorber) -> None:
        for index, port in enumerate(operation.ports):
            for i, form in enumerate(self._forms[port.value]):
                self._charge(self._y[port][i], rule.read(index, port.stored(form)))
        output = operation.output
        if output is not None:
            for j, form in enumerate(self._forms[output]):
                self._charge(self._x[output][j], rule.write(form, output.known))

    def _add_rearranger(self, operation: Operation, rule: Rearranger) -> None:
        output = operation.output
        if output is None:
            return
        stored = [[port.stored(form) for form in self._forms[port.value]] for port in operation.ports]
        for j, form in enumerate(self._forms[output]):
            wanted = next(rule.backward(form), None)
            if wanted is None:
                self._program.forbid(self._x[output][j])
                continue
            for port, part, choices in zip(operation.ports, wanted, stored, strict=True):
                matching = [self._y[port][i] for i, choice in enumerate(choices) if fits(choice, part)]
                self._program.at_most(self._x[output][j], matching)

    def _add_carrier(self, operation: Operation, rule: Carrier) -> None:
        output = operation.output
        if output is None:
            return
        stored = [[port.stored(form) for form in self._forms[port.value]] for port in operation.ports]
        indices = [range(len(choices)) for choices in stored]
        users: list[list[list[int]]] = [[[] for _ in choices] for choices in stored]
        makers: list[list[int]] = [[] for _ in self._forms[output]]
        for combination in product(*indices):
            seen = [choices[i] for choices, i in zip(stored, combination, strict=True)]
            for j, cost in self._results(rule, seen, output):
                variable = self._program.variable(self._price(cost))
                makers[j].append(variable)
                for side, i in zip(users, combination, strict=True):
                    side[i].append(variable)
        for j, variables in enumerate(makers):
            self._program.equal(self._x[output][j], variables)
        for port, side in zip(operation.ports, users, strict=True):
            for i, variables in enumerate(side):
                self._program.equal(self._y[port][i], variables)

    def _results(self, rule: Carrier, seen: list[Stored], output: Value) -> Iterable[tuple[int, Cost]]:
        for j, cost in rule.costs(seen, self._forms[output], output.known):
            yield j, where_it_sinks(cost, output)

    def _read(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Choice:
        def pick(variables: list[int]) -> int:
            return next(i for i, variable in enumerate(variables) if chosen[variable])

        produced = {value: self._forms[value][pick(variables)] for value, variables in self._x.items()}
        read = {port: self._forms[port.value][pick(variables)] for port, variables in self._y.items()}
        maps = tuple(
            LeftMap(value, self._forms[value][j], affine, kind)
            for (value, _, j), (variable, affine, kind) in self._m.items()
            if chosen[variable]
        )
        return Choice(produced, read, maps)


def _kind(affine: Affine) -> Remainder:
    if affine.is_sign:
        return Remainder.SIGN
    axes, rank = varying_axes(affine.shift), affine.shift.dim()
    # Channels split over two axes are still channels: only positions make it an image.
    is_image = len(axes) > 1 and bool(axes & {rank - 1, rank - 2})
    return Remainder.BORDER if is_image and not bool((affine.scale != 1).any()) else Remainder.MAP


def conversion(source: Affine, target: Affine, known: Tensor) -> Affine | None:
    """The map from one stored form to another; None where the first has lost what the second needs.

    With ``v′ = p·v + q`` stored and ``v″ = r·v + u`` wanted, ``v″ = a·v′ + u − a·q``, ``a = r/p``. Between
    two numbers it is their difference.
    """
    flat = (source.scale == 0) | ~known.isnan()
    lost = (source.scale == 0) & (target.scale != 0) & known.isnan()
    scale = torch.where(flat, 1.0, target.scale / torch.where(source.scale == 0, 1.0, source.scale))
    numbers = torch.where(known.isnan(), target.shift - source.shift, target(known) - source(known))
    moved = scale * source.shift
    shift = torch.where(flat, numbers, target.shift - moved)
    # Nothing is known of what is stored, but of what is wanted.
    unstored = flat & shift.isnan() & ~target(known).isnan()
    scale, shift = torch.where(unstored, 0.0, scale), torch.where(unstored, target(known), shift)
    drowned = ~flat & (moved.abs() > MAX_OFFSET * torch.clamp(target.shift.abs(), min=1.0))
    if bool(lost.any() | drowned.any() | shift.isnan().any()):
        return None
    return _without_rounding(Affine(compressed(scale), compressed(shift)), target)


def _without_rounding(result: Affine, target: Affine) -> Affine:
    """A shift that is but the rounding of what cancelled is none."""
    rounding = result.shift.abs() <= 2e-12 * target.shift.abs()
    return Affine(result.scale, compressed(torch.where(rounding, 0.0, result.shift)))
