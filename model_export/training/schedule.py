"""The learning rate as a plain function of the step, so a resumed run needs no state for it."""

from __future__ import annotations

import math

from model_export.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step.

    Warm-up rises linearly and reaches the full rate at its end; then it stays, or falls with
    ``½ (1 + cos(π · progress))`` and would be zero after the last step.

    Args:
        config: The rate, its warm-up and its schedule.
        step: Counted from 0 over the whole run.
        steps_per_epoch: Of the training split.

    Source: Goyal et al. 2017, section 2.2 (warm-up); Loshchilov and Hutter 2017, eq. 5 (cosine).
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.learning_rate * min(1.0, (step + 1) / warmup)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup) / max(1.0, config.epochs * steps_per_epoch - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
