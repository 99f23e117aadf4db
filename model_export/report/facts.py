"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass

from model_export.config import RunConfig
from model_export.records import (
    CalibrationOutcome,
    CostTable,
    FoldOutcome,
    PrecisionOutcome,
    TrainingHistory,
    TrainingPlan,
    Verification,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The results of all stages of one run.

    Attributes:
        config: What was asked for.
        plan: None where the architecture's own normalisation was used.
        history: Empty for a network that came trained.
        calibration: None where the running statistics stayed as they were.
        cost: Before the fold.
        folded_cost: After it.
        fold: The fate of every BatchNorm.
        verification: Proofs and accuracy.
        precisions: Other precisions beside float32.
    """

    config: RunConfig
    plan: TrainingPlan | None
    history: TrainingHistory
    calibration: CalibrationOutcome | None
    cost: CostTable
    folded_cost: CostTable
    fold: FoldOutcome
    verification: Verification
    precisions: tuple[PrecisionOutcome, ...]
