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
        leaves: What is in the work folder, or elsewhere, afterwards; for ``--help``.
        example: Flags of one use; for ``--help``.
        work: What it does; its result is shown, or written as JSON.
        starts_afresh: It begins a run: it takes no settings from the work folder.
    """

    summary: str
    leaves: str
    example: str
    work: Callable[[Run], object]
    starts_afresh: bool = False


STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        "run": Stage(
            "every stage in order, then publish",
            "models/NAME/VERSION: model.onnx, other precisions, report.html and report.json",
            "--dataset mnist --data-dir data/mnist --precisions int8",
            Run.all,
            starts_afresh=True,
        ),
        "plan": Stage(
            "decide on normalisation and loss from cost and data",
            "plan.json, which a later train follows",
            "--dataset cifar10 --data-dir data/cifar10 --batch-size 32",
            Run.plan,
            starts_afresh=True,
        ),
        "train": Stage(
            "train a network",
            "weights.safetensors, history.json, and checkpoint.pt after every epoch",
            "--name mine --epochs 30 --patience 5",
            Run.train,
        ),
        "calibrate": Stage(
            "estimate the running statistics anew, weights fixed",
            "calibrated.safetensors, unless they are worse",
            "--name mine --calibrate-on pictures/",
            Run.calibrate,
        ),
        "cost": Stage(
            "parameters, bytes and MACs, layer by layer",
            "cost.json; with --input alone, nothing",
            "--architecture resnet18 --input 3x224x224 --picture cost.svg",
            Run.cost,
        ),
        "fold": Stage(
            "fold every BatchNorm away that can be",
            "folded.pt2, fold.json and fold.svg",
            "--name mine --objective fewest",
            Run.fold,
        ),
        "export": Stage("write model.onnx", "model.onnx, not proven yet", "--name mine", Run.export),
        "verify": Stage(
            "prove that model.onnx is the network it was made from",
            "verification.json, and the proofs in model.onnx",
            "--name mine",
            Run.verify,
        ),
        "quantize": Stage(
            "make int8 and fp16 files beside the float32 one",
            "model.int8.onnx, model.fp16.onnx; nothing, if they lose too much",
            "--name mine --precisions int8,fp16 --max-accuracy-drop 1",
            Run.quantize,
        ),
        "publish": Stage(
            "take the verified file into the model repository",
            "models/NAME/VERSION, with report.html and report.json",
            "--name mine --repository models",
            Run.publish,
        ),
    }
)
