"""Data sets and networks small enough to train within a test, and to be trained in another process."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.data import ImageDataset, Split
from service.artifact import ColourOrder, InputContract

SIDE = 8
LABELS = ("dark", "bright", "left", "right")


def drawn_split(size: int, seed: int) -> Split:
    """Noisy pictures of four kinds that a network can tell apart, as many of each."""
    generator = np.random.default_rng(seed)
    targets = np.arange(size) % len(LABELS)
    light = np.zeros((len(LABELS), SIDE, SIDE, 1))
    light[1], light[2, :, : SIDE // 2], light[3, :, SIDE // 2 :] = 1, 1, 1
    images = 40 + 150 * light[targets] + generator.normal(0, 20, (size, SIDE, SIDE, 1))
    return Split(images.clip(0, 255).astype(np.uint8), targets.astype(np.int64))


def drawn_dataset(size: int = 96) -> ImageDataset:
    """``size`` pictures to learn from, 32 to validate, 32 held back."""
    contract = InputContract(
        height=SIDE,
        width=SIDE,
        channels=1,
        colour_order=ColourOrder.GRAY,
        fill=(0,),
        mean=(0.45,),
        std=(0.3,),
    )
    splits = (drawn_split(size, 0), drawn_split(32, 1), drawn_split(32, 2))
    return ImageDataset("drawn", LABELS, contract, *splits)


def with_targets(dataset: ImageDataset, targets: NDArray[np.int64], labels: tuple[str, ...]) -> ImageDataset:
    """The same pictures, each class k with the (multi-label) target ``targets[k]``."""
    train, validation, test = (
        replace(split, targets=targets[split.targets])
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, labels=labels, train=train, validation=validation, test=test)


def small_network(seed: int = 0) -> nn.Sequential:
    """A network with a BatchNorm and a Dropout, so that it has running statistics and uses randomness."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16, len(LABELS)),
    )


class Mortal(nn.Module):
    """Kills its own process, without any farewell, when it is called for the ``death``-th time."""

    def __init__(self, network: nn.Module, death: int) -> None:
        super().__init__()
        self.network = network
        self._left = death

    def forward(self, x: Tensor) -> Tensor:
        """The network's logits, while it lives."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.network(x)
        return logits
