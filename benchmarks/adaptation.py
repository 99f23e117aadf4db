"""What running statistics fitted to unlabeled pictures bring, where pictures are not like those learnt from.

::

    test pictures ─ shift (noise, blur, contrast) ─▶ accuracy as trained
                                                  ─▶ accuracy after `adapt` on as many shifted pictures of
                                                     the validation split, whose labels are not looked at

    python -m benchmarks.adaptation --data-dir DIR --weights FILE [--architecture NAME]

The weights are those that ``python -m model_export train --dataset cifar10`` leaves in its work folder.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torch import nn

from model_export import architectures
from model_export.calibration import adapt
from model_export.config import DataConfig, ModelConfig
from model_export.data import ImageDataset, Split, load_dataset
from model_export.evaluation import accuracy

Shift = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def noisy(images: NDArray[np.uint8], deviation: float = 20) -> NDArray[np.uint8]:
    """Normal noise of this deviation, of pixels in 0…255, on every value."""
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def blurred(images: NDArray[np.uint8], radius: float = 1.0) -> NDArray[np.uint8]:
    """A Gaussian blur of this radius, in pixels."""
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])


def faded(images: NDArray[np.uint8], factor: float = 0.3) -> NDArray[np.uint8]:
    """This share of the contrast, around the middle of the scale."""
    result: NDArray[np.uint8] = np.rint(127.5 + factor * (images - 127.5)).astype(np.uint8)
    return result


SHIFTS: Mapping[str, Shift] = MappingProxyType(
    {"none": lambda images: images, "noise": noisy, "blur": blurred, "contrast": faded}
)
PRIORS = (0, 256)  # pictures that the statistics of training count for


def accuracies(network: nn.Module, dataset: ImageDataset, shift: Shift) -> list[float]:
    """Accuracy on the shifted test split: as trained, then adapted with each of `PRIORS`."""

    def shifted(split: Split) -> Split:
        return replace(split, images=shift(split.images))

    elsewhere = replace(dataset, validation=shifted(dataset.validation), test=shifted(dataset.test))
    results = [accuracy(network, elsewhere, "test", name="as trained").value]
    for prior in PRIORS:
        adapted = copy.deepcopy(network)
        adapt(adapted, elsewhere.validation.images, dataset.contract, prior=prior)
        results.append(accuracy(adapted, elsewhere, "test", name="adapted").value)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row a shift.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adaptation", description="Accuracy on shifted pictures, adapted or not."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="of a network trained on it")
    parser.add_argument("--architecture", default="article_cnn")
    parsed = parser.parse_args(arguments)
    dataset = load_dataset(DataConfig("cifar10", parsed.data_dir))
    network = architectures.load(
        ModelConfig(parsed.architecture, weights=parsed.weights),
        input_shape=dataset.input_shape,
        classes=len(dataset.labels),
    )
    table = Table("shift", "as trained", *(f"adapted, prior {prior}" for prior in PRIORS))
    for name, shift in SHIFTS.items():
        table.add_row(name, *(f"{value:.1%}" for value in accuracies(network, dataset, shift)))
    Console().print(table)


if __name__ == "__main__":
    main()
