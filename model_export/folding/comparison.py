"""The proof of a fold: the folded graph run in float64 beside what the original gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, fx

from model_export.folding.choice import Choice
from model_export.folding.facts import Observation
from model_export.folding.network import AffineSpot, Network
from model_export.folding.proof import relative_error, run_float64, sample
from model_export.folding.rules import Stored
from model_export.folding.writing import WrittenGraph


@dataclass(frozen=True, eq=False)
class Proof:
    """How far the folded program is from the original, before its weights are rounded.

    Attributes:
        error: max|Δ| / max|reference|, the largest of all outputs.
        batch_norm_errors: The same of each BatchNorm's own output, by its node, worked out from the form
            that its value is stored in.
    """

    error: float
    batch_norm_errors: Mapping[fx.Node, float]


def prove(
    written: WrittenGraph, network: Network, choice: Choice, original: Observation, inputs: tuple[Tensor, ...]
) -> Proof:
    """Run the folded graph in float64 and compare it with the original's run."""
    spots: dict[fx.Node, list[AffineSpot]] = {}
    for spot in network.affine_spots:
        if spot.node in original.samples and spot.value in written.produced:
            spots.setdefault(written.produced[spot.value], []).append(spot)
    errors: dict[fx.Node, float] = {}

    def compare(node: fx.Node, value: object) -> None:
        for spot in spots.get(node, ()):
            restored = _restored(network, choice, spot, value)
            if restored is not None:
                errors[spot.node] = relative_error([restored], [original.samples[spot.node]])

    outputs = run_float64(written.graph_module, inputs, compare)
    error = relative_error(outputs, original.outputs)
    return Proof(error, {node: errors.get(node, error) for node in original.samples})


def _restored(network: Network, choice: Choice, spot: AffineSpot, value: object) -> Tensor | None:
    """Some values of a BatchNorm's output, from what is stored; None where only its constants remain."""
    _, view = network.views[spot.node]
    stored = Stored(choice.produced[spot.value].after(view.inverse()), view(spot.value.known))
    reading = stored.reading()
    if reading is None or not isinstance(value, Tensor):
        return None
    scale, shift = (sample(part, value.shape) for part in (reading.scale, reading.shift))
    return scale * sample(value) + shift
