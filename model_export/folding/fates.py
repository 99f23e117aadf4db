"""Tells what became of each BatchNorm: who took it, in which form, and how exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import fx

from model_export.folding.choice import Choice
from model_export.folding.names import module_path, normalization_name
from model_export.folding.network import AffineSpot, Network, Operation, Value
from model_export.folding.rules import Carrier, Opaque, Remainder
from model_export.folding.rules.linear import Linear
from model_export.folding.rules.spellings import NORMALIZATIONS
from model_export.records import Fate, Objective

_REASONS: dict[Objective, str] = {
    "fewest": "no layer within reach can take all of it",
    "speed": "it costs less here than anywhere it could go",
}


def tell_fates(
    network: Network,
    choice: Choice,
    objective: Objective,
    errors: Mapping[fx.Node, float],
    first_names: Mapping[str, str],
) -> tuple[Fate, ...]:
    """One fate a BatchNorm, in order; one that is called several times has one.

    Args:
        network: Of the original.
        choice: The forms chosen.
        objective: What they were chosen for.
        errors: Of each BatchNorm's node: max|Δ| / max|reference| of its own output, in float64.
        first_names: Of each module path, the first of that module: one that stands in two places is one.
    """
    teller = _Teller(network, choice, objective, errors)
    fates: dict[str, Fate] = {}
    for spot in teller.spots:
        fate = teller.fate(spot)
        fate = replace(fate, name=first_names.get(fate.name, fate.name))
        fates[fate.name] = _joined(fates[fate.name], fate) if fate.name in fates else fate
    return tuple(fates.values())


def _joined(first: Fate, second: Fate) -> Fate:
    """The fates of two calls of one BatchNorm."""
    worse = first if first.outcome == "kept" else second
    where, form = (
        ", ".join(dict.fromkeys(part for text in pair for part in text.split(", ")))
        for pair in ((first.where, second.where), (first.form, second.form))
    )
    errors = [error for error in (first.error, second.error) if error is not None]
    error = max(errors) if errors and worse.outcome == "folded" else None
    return replace(worse, where=where, form=form, error=error)


class _Teller:
    def __init__(
        self, network: Network, choice: Choice, objective: Objective, errors: Mapping[fx.Node, float]
    ) -> None:
        self._network, self._choice, self._objective, self._errors = network, choice, objective, errors
        self.spots = [s for s in network.affine_spots if s.operator.target in NORMALIZATIONS]
        self._kept = self._attributed()

    def _attributed(self) -> dict[AffineSpot, Value]:
        """Each leftover map, given to the nearest BatchNorm that has none yet."""
        kept: dict[AffineSpot, Value] = {}
        for left in self._choice.maps:
            if left.kind is Remainder.MAP:
                nearest = self._nearest_spot(left.value, kept)
                if nearest is not None:
                    kept[nearest] = left.value
        return kept

    def _nearest_spot(self, value: Value, taken: Mapping[AffineSpot, Value]) -> AffineSpot | None:
        for reached in _neighbourhood(value):
            for spot in self.spots:
                if self._network.current(spot.value) is reached and spot not in taken:
                    return spot
        return None

    def fate(self, spot: AffineSpot) -> Fate:
        """What became of this one call."""
        name = normalization_name(spot.node)
        if spot in self._kept:
            return self._kept_fate(name, spot, self._kept[spot])
        takers, remainders = self._takers(self._network.current(spot.value))
        form = ", ".join([*takers.values(), *sorted(one.value for one in remainders)])
        return Fate(
            name,
            "folded",
            ", ".join(dict.fromkeys(takers)) or module_path(spot.value.node),
            ", ".join(dict.fromkeys(form.split(", "))) or "merged into one layer",
            None,
            self._errors.get(spot.node),
        )

    def _kept_fate(self, name: str, spot: AffineSpot, value: Value) -> Fate:
        """Of one whose map is left at a value: in its own place, or behind another module."""
        is_in_place = self._network.current(spot.value) is value
        where = name if is_in_place else f"after {module_path(value.node)}"
        return Fate(name, "kept", where, self._arithmetic(value), _REASONS[self._objective], None)

    def _arithmetic(self, value: Value) -> str:
        """What is left at a value, in words."""
        steps = []
        for left in self._choice.maps:
            if left.value is value and left.kind is Remainder.MAP:
                steps += ["multiply"] * bool((left.affine.scale != 1).any())
                steps += ["add"] * left.affine.has_shift
        return " and ".join(dict.fromkeys(steps))

    def _takers(self, value: Value) -> tuple[dict[str, str], set[Remainder]]:
        """The layers around a value that took a map, by path, and what the operators between leave."""
        takers: dict[str, str] = {}
        remainders: set[Remainder] = set()
        for reached in _neighbourhood(value):
            operation = reached.operation
            remainders |= self._remainders(operation)
            if isinstance(operation.rule, Linear) and not self._is_plain(reached):
                takers[module_path(reached.node)] = "scaled weights"
            for port in reached.ports:
                seen = port.stored(self._choice.read[port]) if port in self._choice.read else None
                if isinstance(port.operation.rule, Linear) and seen is not None and not seen.form.is_identity:
                    takers[module_path(port.operation.rule.call.node)] = "weights of the next layer"
                    remainders |= self._remainders(port.operation)
        return takers, remainders

    def _is_plain(self, value: Value) -> bool:
        produced = self._choice.produced.get(value)
        return produced is None or produced.is_identity

    def _remainders(self, operation: Operation) -> set[Remainder]:
        """What an operation leaves behind, read and written in the chosen forms."""
        if operation.output is None or operation.output not in self._choice.produced:
            return set()
        form, rule = self._choice.produced[operation.output], operation.rule
        stored = [port.stored(self._choice.read[port]) for port in operation.ports]
        if isinstance(rule, Carrier):
            return {one.kind for one in rule.cost(stored, form, operation.output.known) or ()}
        if isinstance(rule, Linear):
            costs = [rule.read(0, stored[0]), rule.write(form, operation.output.known)]
            return {one.kind for cost in costs for one in cost or ()}
        return set()


def _neighbourhood(value: Value) -> Iterator[Value]:
    """The values that share forms with this one: through every operator but layers and opaque ones."""
    queue, seen = deque([value]), {value}
    while queue:
        current = queue.popleft()
        yield current
        for neighbour in _neighbours(current):
            if neighbour not in seen:
                seen.add(neighbour)
                queue.append(neighbour)


def _neighbours(value: Value) -> Iterator[Value]:
    if isinstance(value.operation.rule, Carrier):
        yield from (port.value for port in value.operation.ports)
    for port in value.ports:
        rule, output = port.operation.rule, port.operation.output
        if isinstance(rule, Carrier) and not isinstance(rule, Opaque) and output is not None:
            yield output
