"""What training minimises, and the plain form of it that validation reports.

::

    one label a picture     softmax cross-entropy            weights w[k] = N / (K · n[k])
    any number of labels    sigmoid cross-entropy a label    weight of a positive (N − n[k]) / n[k]

n[k] is how many of the N training instances show label k. Natural logarithms, means over instances.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model_export.config import TrainConfig


class Loss:
    """The mean loss of a batch.

    Args:
        label_smoothing: Share of the target that is spread over all labels.
        weights: float32 [K], of classes or of positives; None: all alike.

    Source: Szegedy et al. 2016, section 7 (label smoothing).
    """

    def __init__(self, label_smoothing: float = 0.0, weights: Tensor | None = None) -> None:
        self._smoothing = label_smoothing
        self._weights = weights

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """A scalar, from ``logits`` [N, K] and ``targets``: int64 [N], or [N, K] of 0 and 1."""
        weights = None if self._weights is None else self._weights.to(logits.device)
        if targets.dim() == 1:
            return F.cross_entropy(logits, targets, weight=weights, label_smoothing=self._smoothing)
        smooth = targets.to(logits.dtype) * (1 - self._smoothing) + self._smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)


def training_loss(config: TrainConfig, targets: NDArray[np.int64], classes: int) -> Loss:
    """The loss that ``config`` asks for.

    Args:
        config: Smoothing and weights.
        targets: Of the training split.
        classes: K.
    """
    balanced = config.class_weights == "balanced"
    return Loss(config.label_smoothing, balancing_weights(targets, classes) if balanced else None)


def balancing_weights(targets: NDArray[np.int64], classes: int) -> Tensor:
    """float32 [K]: rare labels weigh more. A label that never occurs weighs as one that occurs once."""
    if targets.ndim == 1:
        counts = np.bincount(targets, minlength=classes).clip(min=1)
        return torch.from_numpy(len(targets) / (classes * counts)).float()
    positives = targets.sum(axis=0).clip(min=1)
    return torch.from_numpy((len(targets) - positives).clip(min=1) / positives).float()
