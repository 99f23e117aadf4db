"""Which layers stay in float, so that the answers stay right.

::

    all layers in fewer bits ─ accuracy holds ─▶ done
         └ measure what each layer does alone ─▶ 1, 2, 4, … of the worst in float ─ holds ─▶ done
                                                       └ half of them: refused, the worst are named
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_export.config import QuantizeConfig
from model_export.data import ImageDataset
from model_export.errors import InvalidConfig, VerificationFailed
from model_export.evaluation import open_session, predict, share_right
from model_export.quantization.fp16 import to_fp16
from model_export.quantization.int8 import (
    Int8Plan,
    calibrated_ranges,
    layer_names,
    products_saturate,
    to_int8,
)
from model_export.records import LayerSensitivity, QuantizationOutcome

SENSITIVITY_INSTANCES = 128  # an error's size is clear from few pictures; a layer is one pass over them
_OVERFLOW: Final = float(np.finfo(np.float32).max)  # stands for an answer that is no number

Layers = frozenset[str]


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
    ranges = calibrated_ranges(model_file, _sample(dataset.train.images, config))
    is_reduced = products_saturate()

    def graph(kept: Layers) -> ir.Model:
        return to_int8(model_file, ranges, Int8Plan(kept, is_reduced))

    made, outcome = _Judge("int8", graph, model_file, dataset).search(config, console)
    return made, replace(outcome, is_reduced=is_reduced)


def quantize_fp16(
    model_file: Path, dataset: ImageDataset, config: QuantizeConfig, *, console: Console | None = None
) -> tuple[ir.Model, QuantizationOutcome]:
    """The fp16 graph with as many halved layers as the accuracy on the validation split allows.

    Args:
        model_file: The float file.
        dataset: Judged on its validation split.
        config: How far the accuracy may drop, what stays in float in any case.
        console: Where progress is shown; None: nowhere.

    Raises:
        InvalidConfig: The converter cannot write some operator of the file.
        VerificationFailed: With half of the layers in float it still drops too far; names those that hurt.
    """

    def graph(kept: Layers) -> ir.Model:
        return to_fp16(model_file, kept)

    return _Judge("fp16", graph, model_file, dataset).search(config, console)


class _Judge:
    """Tries on the validation split which layers have to stay in float.

    Args:
        precision: Of all others.
        graph: Makes the graph in which the named layers stay in float.
        model_file: The float file.
        dataset: Whose validation split judges.
    """

    def __init__(
        self,
        precision: Literal["int8", "fp16"],
        graph: Callable[[Layers], ir.Model],
        model_file: Path,
        dataset: ImageDataset,
    ) -> None:
        self._precision = precision
        self._graph = graph
        self._dataset = dataset
        self._logits = predict(open_session(model_file), dataset.validation.images, dataset.contract)
        self._layers = layer_names(model_file)

    def search(self, config: QuantizeConfig, console: Console | None) -> tuple[ir.Model, QuantizationOutcome]:
        """The graph with the fewest layers in float that is right often enough, and how it was found."""
        always = frozenset(_always_kept(self._layers, config))
        drop = self._drop(always)
        if drop <= config.max_accuracy_drop:
            return self._graph(always), self._outcome(always, drop, ())
        sensitivities = self._sensitivities(always, console or Console(quiet=True))
        for more in _most_sensitive(sensitivities):
            drop = self._drop(always | more)
            if drop <= config.max_accuracy_drop:
                return self._graph(always | more), self._outcome(always | more, drop, sensitivities)
        worst = ", ".join(f"{each.layer} ({each.error:.2g})" for each in sensitivities[:3])
        raise VerificationFailed(
            f"{self._precision} loses {drop:.2f} points of accuracy on {self._dataset.name}'s validation "
            f"split with half of the layers in float, --max-accuracy-drop is {config.max_accuracy_drop:g}; "
            f"what hurts most: {worst}; nothing was published"
        )

    def _drop(self, kept: Layers) -> float:
        """Points of accuracy that are lost, negative where some are gained; all of them for no numbers."""
        targets = self._dataset.validation.targets
        logits = self._predict(kept, len(targets))
        if not np.isfinite(logits).all():
            return 100.0
        return 100 * (share_right(self._logits, targets) - share_right(logits, targets))

    def _sensitivities(self, always: Layers, console: Console) -> tuple[LayerSensitivity, ...]:
        """The error that each layer causes when it alone is not in float, the largest first."""
        found = [
            LayerSensitivity(layer, self._error_alone(layer))
            for layer in track(
                [layer for layer in self._layers if layer not in always],
                f"measuring each layer in {self._precision}",
                console=console,
            )
        ]
        return tuple(sorted(found, key=lambda each: -each.error))

    def _error_alone(self, layer: str) -> float:
        reference = self._logits[:SENSITIVITY_INSTANCES]
        logits = self._predict(frozenset(self._layers) - {layer}, len(reference))
        if not np.isfinite(logits).all():
            return _OVERFLOW
        return float(np.abs(logits - reference).max() / np.abs(reference).max())

    def _predict(self, kept: Layers, instances: int) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            ir.save(self._graph(kept), path)
            try:
                session = open_session(path)
            except Exception as error:  # the runtime raises classes of its own, without a common root
                raise InvalidConfig(
                    f"--precisions {self._precision}: an operator of this file is not known to the converter "
                    f"({str(error).splitlines()[0]}); leave {self._precision} out"
                ) from error
            return predict(session, self._dataset.validation.images[:instances], self._dataset.contract)

    def _outcome(
        self, kept: Layers, drop: float, sensitivities: tuple[LayerSensitivity, ...]
    ) -> QuantizationOutcome:
        return QuantizationOutcome(
            self._precision, tuple(sorted(kept)), is_reduced=False, drop=drop, sensitivities=sensitivities
        )


def _sample(images: NDArray[np.uint8], config: QuantizeConfig) -> NDArray[np.uint8]:
    step = -(-len(images) // config.calibration_instances)
    return np.ascontiguousarray(images[::step])


def _always_kept(layers: tuple[str, ...], config: QuantizeConfig) -> Iterator[str]:
    if config.keep_first:
        yield layers[0]
    if config.keep_last:
        yield layers[-1]


def _most_sensitive(sensitivities: tuple[LayerSensitivity, ...]) -> Iterator[Layers]:
    """1, 2, 4, … of them, at most half."""
    count = 1
    while 2 * count <= len(sensitivities):
        yield frozenset(each.layer for each in sensitivities[:count])
        count *= 2
