"""What a stage found, for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from model_export.records import (
    CalibrationOutcome,
    FoldOutcome,
    PrecisionOutcome,
    TrainingHistory,
    TrainingPlan,
    Verification,
)


def print_plan(plan: TrainingPlan, console: Console) -> None:
    """Every decision with its reason."""
    grid = Table(title="plan", title_justify="left")
    for heading in ("what", "choice", "because"):
        grid.add_column(heading)
    for decision in plan.decisions:
        grid.add_row(decision.subject, decision.choice, decision.reason)
    console.print(grid)


def print_calibration(outcome: CalibrationOutcome, console: Console) -> None:
    """What the new running statistics brought."""
    verdict = "taken" if outcome.is_taken else "not taken"
    console.print(
        f"running statistics estimated anew from {outcome.instances:,} pictures ({outcome.source}): "
        f"accuracy {outcome.before:.2%} → {outcome.after:.2%} on {outcome.judged:,} other validation "
        f"pictures, {verdict}"
    )


def print_precision(outcome: PrecisionOutcome, console: Console) -> None:
    """Size, accuracy and what stayed in float."""
    (accuracy,) = outcome.verification.accuracy
    kept = ", ".join(outcome.made.kept) or "nothing"
    console.print(
        f"{outcome.made.precision}: {outcome.bytes:,} of {outcome.float_bytes:,} bytes, accuracy "
        f"{accuracy.value:.2%}, {outcome.speed_up} on this CPU, in float: {kept}",
        soft_wrap=True,
    )


def print_training(history: TrainingHistory, console: Console) -> None:
    """How the training ended."""
    if not history.epochs:
        console.print("not trained: the weights are taken as they are")
        return
    last = history.epochs[-1]
    seconds = sum(epoch.seconds for epoch in history.epochs)
    console.print(
        f"trained {last.epoch} epoch(s) in {seconds:.0f} s: loss {last.train_loss:.4f}, "
        f"validation loss {last.validation_loss:.4f}, validation accuracy {last.validation_accuracy:.2%}"
    )


def print_fold(outcome: FoldOutcome, console: Console) -> None:
    """The fate of every BatchNorm, and the fold as a whole."""
    grid = Table(title="what became of each BatchNorm", title_justify="left")
    for heading in ("BatchNorm", "outcome", "where", "form", "reason"):
        grid.add_column(heading)
    for fate in outcome.fates:
        grid.add_row(fate.name, fate.outcome, fate.where, fate.form, fate.reason or "")
    if outcome.fates:
        console.print(grid)
    console.print(
        f"{outcome.count('folded')} of {len(outcome.fates)} BatchNorm(s) folded, "
        f"{outcome.affine_maps_left} affine map(s) left; error {outcome.error:.2g} in float64"
    )


def print_verification(found: Verification, console: Console) -> None:
    """Every proof with its bound, and the accuracy of each form."""
    grid = Table(title="proofs", title_justify="left")
    grid.add_column("check")
    for heading in ("error", "bound", "instances"):
        grid.add_column(heading, justify="right")
    for check in found.checks:
        grid.add_row(check.check, f"{check.error:.2g}", f"{check.tolerance:.2g}", f"{check.instances:,}")
    console.print(grid)
    for result in found.accuracy:
        console.print(
            f"accuracy {result.value:.2%} {result.form} ({result.dataset}, {result.split}, "
            f"{result.instances:,} instances)"
        )
