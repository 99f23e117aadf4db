"""The story of a fold: every BatchNorm's fate, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model_export.records import Fate, Objective


@dataclass(frozen=True, slots=True)
class FoldReport:
    """One `Fate` per BatchNorm, in the order of the program, and the fold as a whole.

    Attributes:
        objective: What was asked for.
        fates: One a BatchNorm.
        affine_maps_left: Per-channel affine maps that the folded program still computes.
        error: max|Δ| / max|reference| over all outputs, both programs run in float64.
    """

    objective: Objective
    fates: tuple[Fate, ...]
    affine_maps_left: int
    error: float

    def __iter__(self) -> Iterator[Fate]:
        """Over the fates."""
        return iter(self.fates)

    def __len__(self) -> int:
        """How many BatchNorms there were."""
        return len(self.fates)

    def count(self, outcome: str) -> int:
        """How many BatchNorms had this outcome."""
        return sum(fate.outcome == outcome for fate in self.fates)
