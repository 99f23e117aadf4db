"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_export.config import AdoptConfig, RunConfig
from model_export.records import (
    CalibrationOutcome,
    CostTable,
    DataSummary,
    FoldOutcome,
    LayerTime,
    PrecisionOutcome,
    TrainingHistory,
    TrainingPlan,
    Verification,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The results of all stages that ran.

    Attributes:
        config: What was asked for.
        verification: Proofs and accuracy.
        data: What the network was trained and measured on; None where no data set was named.
        adoption: Where the file came from, if it was not made here.
        plan: None where the architecture's own normalisation was used.
        history: Empty for a network that came trained.
        calibration: None where the running statistics stayed as they were.
        cost: Before the fold; None for an adopted file.
        folded_cost: After it; likewise.
        times: Of each node of the served graph; empty for an adopted file.
        fold: The fate of every BatchNorm; likewise.
        fold_picture: The program before and after, as SVG; likewise.
        precisions: Other precisions beside float32.
    """

    config: RunConfig
    verification: Verification
    data: DataSummary | None = None
    adoption: AdoptConfig | None = None
    plan: TrainingPlan | None = None
    history: TrainingHistory = field(default_factory=lambda: TrainingHistory(()))
    calibration: CalibrationOutcome | None = None
    cost: CostTable | None = None
    folded_cost: CostTable | None = None
    times: tuple[LayerTime, ...] = ()
    fold: FoldOutcome | None = None
    fold_picture: str | None = None
    precisions: tuple[PrecisionOutcome, ...] = ()
