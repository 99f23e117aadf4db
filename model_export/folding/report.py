"""The story of a fold: every BatchNorm's fate, what was saved, and the program before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from model_export.folding.picture import Drawing, draw
from model_export.records import Fate, Objective, Outcome


@dataclass(frozen=True, slots=True)
class Savings:
    """What the fold took away, for one instance of the example's size. Negative: it came on top.

    Attributes:
        operators: Nodes of the graph.
        elementwise_operations: Multiplications and additions of affine maps (two an element), less what
            is left of them.
        weight_bytes: Bytes of parameters and constants.
    """

    operators: int
    elementwise_operations: int
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class DeadChannels:
    """Channels of one layer whose values never differ.

    Attributes:
        layer: Module path of what writes them.
        channels: Their indices.
        constants: The constant that each of them holds.
    """

    layer: str
    channels: tuple[int, ...]
    constants: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FoldReport:
    """One `Fate` per BatchNorm, in the order of the program, and the fold as a whole.

    Attributes:
        objective: What was asked for.
        fates: One a BatchNorm.
        affine_maps_left: Per-channel affine maps that the folded program still computes.
        error: max|Δ| / max|reference|, the largest of all outputs, both programs run in float64.
        savings: What was taken away.
        dead_channels: Channels that are constant, by layer; dropped where ``pruned`` says so.
        pruned: How many channels were dropped.
        before: The program that was folded.
        after: The folded program.
    """

    objective: Objective
    fates: tuple[Fate, ...]
    affine_maps_left: int
    error: float
    savings: Savings
    dead_channels: tuple[DeadChannels, ...]
    pruned: int
    before: Drawing
    after: Drawing

    def __iter__(self) -> Iterator[Fate]:
        """Over the fates."""
        return iter(self.fates)

    def __len__(self) -> int:
        """How many BatchNorms there were."""
        return len(self.fates)

    def count(self, outcome: Outcome) -> int:
        """How many BatchNorms had this outcome."""
        return sum(fate.outcome == outcome for fate in self.fates)

    def to_json(self) -> str:
        """The report without its drawings, as JSON."""
        content = asdict(self)
        del content["before"], content["after"]
        return json.dumps(content, indent=2)

    def picture(self) -> str:
        """The program before and after, side by side, as SVG."""
        return draw(self.before, self.after)

    def __str__(self) -> str:
        """The report as text: a line a BatchNorm."""
        counts = ", ".join(f"{self.count(outcome)} {outcome}" for outcome in ("folded", "kept", "refused"))
        lines = [
            f"{len(self)} BatchNorm(s): {counts}; {self.affine_maps_left} affine map(s) left"
            f" ({self.objective}); error {self.error:.1e} in float64",
            f"saved: {self.savings.operators} operators, {self.savings.elementwise_operations} elementwise"
            f" operations an instance, {self.savings.weight_bytes} bytes of weights",
            *(_line(fate) for fate in self.fates),
            *(f"  {dead.layer}: {len(dead.channels)} constant channel(s)" for dead in self.dead_channels),
        ]
        return "\n".join(lines)


def _line(fate: Fate) -> str:
    error = "" if fate.error is None else f", error {fate.error:.1e}"
    reason = "" if fate.reason is None else f": {fate.reason}"
    form = f" ({fate.form})" if fate.form else ""
    return f"  {fate.name}: {fate.outcome} → {fate.where}{form}{error}{reason}"
