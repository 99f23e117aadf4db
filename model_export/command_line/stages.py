"""The stages that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from model_export.pipeline import Run


@dataclass(frozen=True, slots=True)
class Stage:
    """One subcommand.

    Attributes:
        summary: For ``--help``.
        work: What it does; its result is shown, or written as JSON.
        starts_afresh: It begins a run: it takes no settings from the work folder.
    """

    summary: str
    work: Callable[[Run], object]
    starts_afresh: bool = False


STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        "run": Stage("every stage in order, then publish", Run.all, starts_afresh=True),
        "plan": Stage("decide on normalisation and loss from cost and data", Run.plan, starts_afresh=True),
        "train": Stage("train a network", Run.train),
        "calibrate": Stage("estimate the running statistics anew, weights fixed", Run.calibrate),
        "cost": Stage("parameters, bytes and MACs, layer by layer", Run.cost),
        "fold": Stage("fold every BatchNorm away that can be", Run.fold),
        "export": Stage("write model.onnx", Run.export),
        "verify": Stage("prove that model.onnx is the network it was made from", Run.verify),
        "quantize": Stage("make int8 and fp16 files beside the float32 one", Run.quantize),
        "publish": Stage("take the verified file into the model repository", Run.publish),
    }
)
