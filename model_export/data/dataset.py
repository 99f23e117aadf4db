"""What a loader hands on: three splits of decoded pictures and the contract that decoded them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_export.errors import DataError
from service.artifact import InputContract

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pictures and what is right for each.

    Attributes:
        images: uint8 [N, H, W, C].
        targets: int64 [N], label indices; multi-label: int64 [N, K] of 0 and 1.
        sizes: float64 [N], √(width · height) as stored; None: they never were encoded pictures.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    sizes: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: NDArray[np.intp]) -> Split:
        """The instances at ``positions``, in that order."""
        sizes = None if self.sizes is None else self.sizes[positions]
        return Split(self.images[positions], self.targets[positions], sizes)


@dataclass(frozen=True, slots=True, eq=False)
class ImageDataset:
    """A data set ready for a network.

    Attributes:
        name: What it is called in reports.
        labels: One a class, in the order of the logits.
        contract: How an encoded picture becomes one like these.
        train: What weights and statistics are learnt from.
        validation: What choices are made on.
        test: Held back; only measured on.
    """

    name: str
    labels: tuple[str, ...]
    contract: InputContract
    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        shape = (self.contract.height, self.contract.width, self.contract.channels)
        splits: tuple[SplitName, ...] = ("train", "validation", "test")
        for split in splits:
            _check_split(self.split(split), f"{self.name}, {split} split", shape, len(self.labels))

    def split(self, name: SplitName) -> Split:
        """The split of this name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C, H, W: what `architectures.build` wants to know."""
        return self.contract.channels, self.contract.height, self.contract.width


def _check_split(split: Split, where: str, shape: tuple[int, int, int], classes: int) -> None:
    if len(split) == 0:
        raise DataError(f"{where}: no pictures")
    if split.images.shape[1:] != shape:
        raise DataError(f"{where}: pictures of shape {split.images.shape[1:]}, the contract says {shape}")
    if len(split.targets) != len(split):
        raise DataError(f"{where}: {len(split)} pictures, {len(split.targets)} targets")
    if split.targets.ndim == 2 and split.targets.shape[1] != classes:
        raise DataError(f"{where}: targets of {split.targets.shape[1]} labels, there are {classes}")
    limit = classes if split.targets.ndim == 1 else 2
    if split.targets.min() < 0 or split.targets.max() >= limit:
        raise DataError(f"{where}: targets reach {split.targets.max()}, there are {classes} labels")
