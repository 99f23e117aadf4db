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
        starts_afresh: It begins a run, so it does not take settings from the work folder.
    """

    summary: str
    work: Callable[[Run], object]
    starts_afresh: bool = False


STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        "run": Stage("every stage in order, then publish", Run.all, starts_afresh=True),
        "train": Stage("train a network", Run.train, starts_afresh=True),
        "cost": Stage("parameters, bytes and MACs, layer by layer", Run.cost),
        "fold": Stage("fold every BatchNorm away that can be", Run.fold),
        "export": Stage("write model.onnx", Run.export),
        "verify": Stage("prove that model.onnx is the network it was made from", Run.verify),
        "publish": Stage("take the verified file into the model repository", Run.publish),
    }
)
