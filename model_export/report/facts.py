"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass

from model_export.config import RunConfig
from model_export.records import CostTable, FoldOutcome, TrainingHistory, Verification


@dataclass(frozen=True, slots=True)
class Facts:
    """The results of all stages of one run.

    Attributes:
        config: What was asked for.
        history: Empty for a network that came trained.
        cost: Before the fold.
        folded_cost: After it.
        fold: The fate of every BatchNorm.
        verification: Proofs and accuracy.
    """

    config: RunConfig
    history: TrainingHistory
    cost: CostTable
    folded_cost: CostTable
    fold: FoldOutcome
    verification: Verification
