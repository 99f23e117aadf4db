"""Logits and accuracy of the network in any of its forms: module, exported program, model file.

::

    images uint8 [N, H, W, C] ──┬─ module, program   normalised here ──┬──▶ logits float32 [N, K]
                                └─ session           inside the graph ─┘
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from model_export.data import ImageDataset, SplitName
from model_export.layers import PixelNormalization, evaluating
from model_export.records import AccuracyResult
from service.artifact import INPUT_NAME, LOGITS_NAME, InputContract

BATCH_SIZE = 256  # enough to keep the cores busy, small enough for the activations of a big network


class Session(Protocol):
    """What is used of an ONNX Runtime session (which carries no types)."""

    def run(
        self, output_names: list[str], input_feed: dict[str, NDArray[np.uint8]], /
    ) -> list[NDArray[np.float32]]:
        """The named outputs for these inputs."""


Form = nn.Module | ExportedProgram | Session


def open_session(path: Path, *, optimised: bool = True) -> ort.InferenceSession:
    """A CPU session on a model file.

    Args:
        path: ``model.onnx``.
        optimised: False: the graph runs as it was written, no node fused or moved.
    """
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def predict(form: Form, images: NDArray[np.uint8], contract: InputContract) -> NDArray[np.float32]:
    """Logits [N, K] in the form's own precision, the network evaluating (its mode is restored afterwards).

    Args:
        form: A network or program that takes normalised [N, C, H, W], or a session on a model
            file that takes the pixels themselves.
        images: uint8 [N, H, W, C], not modified.
        contract: Whose mean and std normalise.
    """
    batches = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
    if isinstance(form, nn.Module | ExportedProgram):
        module = form.module() if isinstance(form, ExportedProgram) else form
        return np.concatenate([logits.cpu().numpy() for logits in _evaluated(module, batches, contract)])
    return np.concatenate([form.run([LOGITS_NAME], {INPUT_NAME: batch})[0] for batch in batches])


def accuracy(form: Form, dataset: ImageDataset, split: SplitName, *, name: str) -> AccuracyResult:
    """Top-1 accuracy of one form of the network on one split.

    Args:
        form: As for `predict`.
        dataset: Where the pictures and the contract come from.
        split: Which of its splits.
        name: The form's name in the result: ``unfolded``, ``folded``, ``onnx``, …
    """
    part = dataset.split(split)
    logits = predict(form, part.images, dataset.contract)
    return AccuracyResult(name, dataset.name, split, len(part), share_right(logits, part.targets))


def share_right(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Share of right answers: top-1, or (multi-label) of single labels judged at probability ½.

    Args:
        logits: float32 [N, K].
        targets: int64 [N], or [N, K] of 0 and 1.
    """
    judged = logits.argmax(axis=1) if targets.ndim == 1 else logits > 0
    return float((judged == targets).mean())


def _evaluated(
    module: nn.Module, batches: Iterator[NDArray[np.uint8]], contract: InputContract
) -> Iterator[Tensor]:
    weights = (
        tensor for tensor in chain(module.parameters(), module.buffers()) if tensor.is_floating_point()
    )
    like = next(weights, torch.empty(0))
    normalise = PixelNormalization(contract.mean, contract.std).to(like.device)
    with evaluating(module), torch.inference_mode():
        for batch in batches:
            yield module(normalise(torch.from_numpy(batch).to(like.device)).to(like.dtype))
