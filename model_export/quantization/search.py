"""Which layers stay in float, so that the answers stay right."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_export.config import QuantizeConfig
from model_export.data import ImageDataset
from model_export.errors import VerificationFailed
from model_export.evaluation import open_session, predict, share_right
from model_export.quantization.int8 import (
    Int8Plan,
    Ranges,
    calibrated_ranges,
    layer_names,
    products_saturate,
    to_int8,
)
from model_export.records import LayerSensitivity, QuantizationOutcome

SENSITIVITY_INSTANCES = 128  # an error's size is clear from few pictures; a layer is one pass over them


def quantize_int8(
    model_file: Path, dataset: ImageDataset, config: QuantizeConfig, *, console: Console | None = None
) -> tuple[ir.Model, QuantizationOutcome]:
    """The int8 graph with as many quantized layers as the accuracy on the validation split allows.

    Args:
        model_file: The float file.
        dataset: Calibrated on its training split, judged on its validation split.
        config: How far the accuracy may drop, what stays in float in any case.
        console: Where progress is shown; None: nowhere.

    Raises:
        VerificationFailed: With half of the layers in float it still drops too far; names those that hurt.
    """
    judge = _Judge(model_file, dataset, config)
    plan = Int8Plan(frozenset(_always_kept(judge.layers, config)), products_saturate())
    drop = judge.drop(plan)
    if drop <= config.max_accuracy_drop:
        return judge.graph(plan), _outcome(plan, drop, ())
    sensitivities = judge.sensitivities(plan, console or Console(quiet=True))
    for candidate in _keeping_more(plan, sensitivities):
        drop = judge.drop(candidate)
        if drop <= config.max_accuracy_drop:
            return judge.graph(candidate), _outcome(candidate, drop, sensitivities)
    worst = ", ".join(f"{each.layer} ({each.error:.2g})" for each in sensitivities[:3])
    raise VerificationFailed(
        f"int8 loses {drop:.2f} points of accuracy on {dataset.name}'s validation split with half of the "
        f"layers in float, --max-accuracy-drop is {config.max_accuracy_drop:g}; what hurts most: {worst}; "
        "nothing was published"
    )


class _Judge:
    """Tries plans on the validation split."""

    def __init__(self, model_file: Path, dataset: ImageDataset, config: QuantizeConfig) -> None:
        self._model_file = model_file
        self._validation = dataset.validation
        self._contract = dataset.contract
        self._ranges: Ranges = calibrated_ranges(model_file, _sample(dataset.train.images, config))
        self._logits = predict(open_session(model_file), self._validation.images, self._contract)
        self.layers = layer_names(model_file)

    def graph(self, plan: Int8Plan) -> ir.Model:
        """The graph of a plan."""
        return to_int8(self._model_file, self._ranges, plan)

    def drop(self, plan: Int8Plan) -> float:
        """Points of accuracy that the plan loses; negative where it gains."""
        targets = self._validation.targets
        quantized = self._predict(plan, len(targets))
        return 100 * (share_right(self._logits, targets) - share_right(quantized, targets))

    def sensitivities(self, plan: Int8Plan, console: Console) -> tuple[LayerSensitivity, ...]:
        """The error that each layer causes when it alone is quantized, the largest first."""
        open_layers = [layer for layer in self.layers if layer not in plan.kept]
        found = [
            LayerSensitivity(layer, self._error_alone(plan, layer))
            for layer in track(open_layers, "measuring each layer in int8", console=console)
        ]
        return tuple(sorted(found, key=lambda each: -each.error))

    def _error_alone(self, plan: Int8Plan, layer: str) -> float:
        alone = replace(plan, kept=frozenset(self.layers) - {layer})
        reference = self._logits[:SENSITIVITY_INSTANCES]
        difference = self._predict(alone, len(reference)) - reference
        return float(np.abs(difference).max() / np.abs(reference).max())

    def _predict(self, plan: Int8Plan, instances: int) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            ir.save(self.graph(plan), path)
            return predict(open_session(path), self._validation.images[:instances], self._contract)


def _sample(images: NDArray[np.uint8], config: QuantizeConfig) -> NDArray[np.uint8]:
    step = -(-len(images) // config.calibration_instances)
    return np.ascontiguousarray(images[::step])


def _always_kept(layers: tuple[str, ...], config: QuantizeConfig) -> Iterator[str]:
    if config.keep_first:
        yield layers[0]
    if config.keep_last:
        yield layers[-1]


def _keeping_more(plan: Int8Plan, sensitivities: tuple[LayerSensitivity, ...]) -> Iterator[Int8Plan]:
    """1, 2, 4, … of the most sensitive layers in float, at most half of them."""
    count = 1
    while 2 * count <= len(sensitivities):
        yield replace(plan, kept=plan.kept | {each.layer for each in sensitivities[:count]})
        count *= 2


def _outcome(plan: Int8Plan, drop: float, sensitivities: tuple[LayerSensitivity, ...]) -> QuantizationOutcome:
    return QuantizationOutcome("int8", tuple(sorted(plan.kept)), plan.is_reduced, drop, sensitivities)
