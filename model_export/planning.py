"""Normalisation and loss fitted to the task: the article's "adaptive BN", each choice with its reason.

::

    cost of the network ─▶ which layers get a BatchNorm, and on which side of the activation
    size of the data    ─▶ momentum: how many batches the moving average covers
    pictures, once      ─▶ ε, against the smallest variance that they cause
    targets             ─▶ the loss: softmax or sigmoid, class weights, label smoothing

Nothing is tried out by training; every choice follows from a number that its reason names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export import architectures
from model_export.config import ModelConfig, TrainConfig
from model_export.data import ImageDataset
from model_export.layers import KERAS_EPSILON, KERAS_MOMENTUM, PixelNormalization
from model_export.records import CostTable, Decision, LayerCost, Placement, TrainingPlan

# Under so few values a channel, a batch's mean is off by more than 1/√32 = 18 % of a deviation.
FEWEST_VALUES: Final = 32
# Of the moving average's weight, so much lies on the batches that it is meant to cover.
COVERAGE: Final = 0.95
# Longer averages gain little precision and lag behind weights that still change.
LONGEST_COVER: Final = 200
SMALLEST_EPSILON: Final = 1e-5  # below, float32 rounding of the variance itself is of that size
EPSILON_SHARE: Final = 0.01  # of the smallest variance: ε changes no channel's scale by more than 0.5 %
DEAD_VARIANCE: Final = 1e-12  # a channel that is zero everywhere, behind a ReLU
IMBALANCE: Final = 3.0  # largest class against smallest
MANY_CLASSES: Final = 100
SMOOTHING: Final = 0.1  # Szegedy et al. 2016, section 7
SEEN: Final = 512  # pictures that the smallest variance is looked for in


@dataclass(frozen=True, slots=True)
class _Structure:
    placements: Mapping[str, Placement]
    decisions: tuple[Decision, ...]


def plan(model: ModelConfig, dataset: ImageDataset, config: TrainConfig, cost: CostTable) -> TrainingPlan:
    """What the network's BatchNorms and the loss should be like.

    Args:
        model: The network.
        dataset: What it will be trained on.
        config: How; what is asked for there (class weights, smoothing) stands.
        cost: Of one picture, the network as its architecture has it.

    Raises:
        ModelError: The network cannot be built.
    """
    structure = _structure(model, dataset, config, cost)
    momentum, for_momentum = _momentum(dataset, config)
    epsilon, for_epsilon = _epsilon(model, dataset, config, structure.placements)
    weights, smoothing, for_loss = _loss(dataset, config)
    return TrainingPlan(
        placements=structure.placements,
        momentum=momentum,
        epsilon=epsilon,
        class_weights=weights,
        label_smoothing=smoothing,
        decisions=(
            *structure.decisions,
            for_momentum,
            for_epsilon,
            _statistics(dataset),
            *for_loss,
        ),
    )


def _structure(model: ModelConfig, dataset: ImageDataset, config: TrainConfig, cost: CostTable) -> _Structure:
    if model.model is not None or model.architecture not in architectures.PLANNABLE:
        norms = sum(layer.operator == "batch_norm" for layer in cost.layers)
        reason = f"the network has {norms} BatchNorms of its own, and its weights know where they stand"
        return _Structure({}, (Decision("placement", "as the architecture has it", reason),))
    slots = architectures.PLANNABLE[model.architecture].slots
    layers = {layer.name: layer for layer in cost.layers if layer.name in slots}
    batch = _smallest_batch(dataset, config)
    chosen = {name: _placement(layers[name], batch) for name in slots}
    return _Structure(
        {name: placement for name, (placement, _) in chosen.items()},
        tuple(decision for _, decision in chosen.values()),
    )


def _placement(layer: LayerCost, batch: int) -> tuple[Placement, Decision]:
    values = batch * math.prod(layer.output_shape[1:])
    if values < FEWEST_VALUES:
        reason = (
            f"a batch gives {values} values a channel, so its mean is off by about "
            f"{1 / math.sqrt(values):.0%} of a deviation"
        )
        return "none", Decision(layer.name, "no BatchNorm", reason)
    reason = (
        f"there it folds into {layer.name} and leaves nothing to compute; behind the activation a clamp "
        f"or a shift of {layer.activation_bytes:,} bytes a picture can remain"
    )
    return "before_activation", Decision(layer.name, "BatchNorm before the activation", reason)


def _momentum(dataset: ImageDataset, config: TrainConfig) -> tuple[float, Decision]:
    """d with 1 − dⁿ = coverage, for n batches."""
    steps = config.steps(len(dataset.train))
    covered = min(steps, LONGEST_COVER)
    momentum = (1 - COVERAGE) ** (1 / covered)
    reason = (
        f"an epoch has {steps} batches; {COVERAGE:.0%} of the moving average then lie on the last {covered}"
    )
    return momentum, Decision("momentum", f"{momentum:.4f}", reason)


def _epsilon(
    model: ModelConfig, dataset: ImageDataset, config: TrainConfig, placements: Mapping[str, Placement]
) -> tuple[float | None, Decision]:
    if model.weights is not None:
        return None, Decision(
            "epsilon", "as the architecture has it", f"{model.weights.name} was made with it"
        )
    smallest = {
        name: float(values[values > DEAD_VARIANCE].min())
        for name, values in _measured(model, dataset, config, placements).items()
        if (values > DEAD_VARIANCE).any()
    }
    if not smallest:
        return None, Decision("epsilon", "as the architecture has it", "no BatchNorm sees a live channel")
    where = min(smallest, key=lambda name: smallest[name])
    wanted = 10 ** math.floor(math.log10(EPSILON_SHARE * smallest[where]))
    epsilon = min(KERAS_EPSILON, max(SMALLEST_EPSILON, wanted))
    change = 1 - math.sqrt(smallest[where] / (smallest[where] + epsilon))
    reason = (
        f"the smallest variance of a live channel is {smallest[where]:.2g} (in {where}); its scale "
        f"changes by {change:.2%}"
    )
    return epsilon, Decision("epsilon", f"{epsilon:g}", reason)


def _statistics(dataset: ImageDataset) -> Decision:
    reason = (
        "moving averages see the last batches of changing weights, and pictures that are known by heart; "
        f"half of the {len(dataset.validation):,} validation pictures, without their labels, are neither"
    )
    return Decision("running statistics", "estimated anew after training", reason)


def _loss(
    dataset: ImageDataset, config: TrainConfig
) -> tuple[Literal["none", "balanced"], float, tuple[Decision, ...]]:
    targets, classes = dataset.train.targets, len(dataset.labels)
    is_single = targets.ndim == 1
    decisions = [
        Decision("loss", "softmax cross-entropy", "every picture has exactly one label")
        if is_single
        else Decision("loss", "sigmoid cross-entropy of each label", "a picture may have several labels")
    ]
    counts = np.bincount(targets, minlength=classes) if is_single else targets.sum(axis=0)
    ratio = float(counts.max() / max(1, counts.min()))
    weights = config.class_weights
    if ratio >= IMBALANCE and weights == "none":
        weights = "balanced"
        reason = f"the most frequent label is {ratio:.1f} times as frequent as the rarest"
        decisions.append(Decision("class weights", "balanced", reason))
    smoothing = config.label_smoothing
    if is_single and classes >= MANY_CLASSES and smoothing == 0:
        smoothing = SMOOTHING
        reason = f"with {classes} classes some are alike, and full confidence in one of them is overfitted"
        decisions.append(Decision("label smoothing", f"{smoothing:g}", reason))
    return weights, smoothing, tuple(decisions)


def _smallest_batch(dataset: ImageDataset, config: TrainConfig) -> int:
    size = len(dataset.train)
    return size // config.steps(size)


def _measured(
    model: ModelConfig,
    dataset: ImageDataset,
    config: TrainConfig,
    placements: Mapping[str, Placement],
) -> dict[str, Tensor]:
    """What each BatchNorm of the fresh, planned network sees: the variance of every channel, by name."""
    draft = TrainingPlan(placements, KERAS_MOMENTUM, None, "none", 0.0, ())
    network = architectures.load(
        model,
        input_shape=dataset.input_shape,
        classes=len(dataset.labels),
        seed=config.seed,
        plan=draft,
    )
    chosen = np.random.default_rng(config.seed).permutation(len(dataset.train))[:SEEN]
    normalise = PixelNormalization(dataset.contract.mean, dataset.contract.std)
    pixels = normalise(torch.from_numpy(dataset.train.images[chosen]))
    return _variances(network.train(), pixels)


def _variances(network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def note(name: str, axis: int, x: Tensor) -> None:
        seen[name] = x.movedim(axis, 0).flatten(1).var(dim=1)

    for name, part in network.named_modules():
        if isinstance(part, _BatchNorm):
            axis = getattr(part, "axis", 1)
            part.register_forward_pre_hook(
                lambda _, inputs, name=name, axis=axis: note(name, axis, inputs[0])
            )
    with torch.no_grad():
        network(pixels)
    return seen
