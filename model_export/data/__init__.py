"""Data sets: read, checked, divided, decoded by the service's own decoder, measured.

::

    digits, mnist, cifar10 ── read ──▶ pixels ── divide ── conform (the contract) ─┐
                                                                                   ├─ measure ─▶ ImageDataset
    imagefolder, cifar10 ── survey ──▶ names ── divide ── decode (the contract) ───┘

Dividing is seeded and stratified; mean and std are measured on the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model_export.config import DataConfig
from model_export.data import cifar10, digits, imagefolder, labeltable, mnist
from model_export.data.archive import Archive, find_archive
from model_export.data.dataset import ImageDataset, Split, SplitName
from model_export.data.division import divide, thin
from model_export.data.labels import ordered_labels, read_labels, relabelled
from model_export.data.layout import Layout, Listing
from model_export.data.pixels import conformed, contract_for, encode_png, measured
from model_export.errors import DataError, InvalidConfig
from service.artifact import InputContract

__all__ = [
    "ImageDataset",
    "Split",
    "SplitName",
    "contract_for",
    "encode_png",
    "load_dataset",
    "load_pictures",
    "read_labels",
    "reordered",
    "require_pictures",
]

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
DOWNLOADS = Path("data")  # one folder a data set; ignored by git


def load_dataset(
    config: DataConfig, *, labels: Path | None = None, console: Console | None = None
) -> ImageDataset:
    """The data set that ``config`` names.

    Args:
        config: Which pictures, and what they become.
        labels: File with one label a line; None: the data set's own.
        console: Where progress is shown; None: nowhere.

    Raises:
        DataError: A file is missing, damaged or of the wrong shape; the message names it.
        InvalidConfig: The flags contradict each other.
    """
    given = None if labels is None else read_labels(labels)
    if config.dataset == "digits":
        return _assembled(config, given, digits.LABELS, digits.SHAPE, digits.read(), None, console)
    if config.dataset == "mnist":
        everything = mnist.read(_mnist_folder(config, console))
        return _assembled(config, given, mnist.LABELS, mnist.SHAPE, *everything, console)
    with Archive(_archive_path(config, console)) as archive:
        if config.dataset == "cifar10" and cifar10.batches_in(archive):
            everything = cifar10.read(archive)
            return _assembled(config, given, cifar10.LABELS, cifar10.SHAPE, *everything, console)
        native = cifar10.SHAPE if config.dataset == "cifar10" else None
        return _decoded(config, given, native, archive, console)


def require_pictures(path: Path) -> None:
    """Checks that there are pictures for `load_pictures`; none is decoded.

    Raises:
        DataError: There are none, or ``path`` is neither a folder nor a tar file.
    """
    with Archive(find_archive(path)) as archive:
        imagefolder.pictures_in(archive)


def load_pictures(
    path: Path, contract: InputContract, *, console: Console | None = None
) -> NDArray[np.uint8]:
    """All pictures in a folder or tar file, without labels: uint8 [N, H, W, C].

    Raises:
        DataError: There are none, or one cannot be decoded; the message names it.
    """
    with Archive(find_archive(path)) as archive:
        images, _ = imagefolder.load(archive, imagefolder.pictures_in(archive), contract, console=console)
    return images


def _mnist_folder(config: DataConfig, console: Console | None) -> Path:
    folder = config.data_dir or DOWNLOADS / "mnist"
    if config.data_dir is None:
        mnist.download(folder, console=console)
    return folder


def _archive_path(config: DataConfig, console: Console | None) -> Path:
    if config.data_dir is not None:
        return find_archive(config.data_dir)
    if config.dataset == "cifar10":
        return cifar10.download(DOWNLOADS / "cifar10", console=console)
    raise InvalidConfig(f"--dataset {config.dataset} needs --data-dir: a folder or a tar file of pictures")


def _assembled(
    config: DataConfig,
    given: tuple[str, ...] | None,
    classes: tuple[str, ...],
    native: tuple[int, int, int],
    learning: Split,
    held_back: Split | None,
    console: Console | None,
) -> ImageDataset:
    """A data set from pixels in memory; with ``held_back`` None, that is taken from ``learning``."""
    contract = contract_for(config, native)
    shares = (VALIDATION_SHARE, TEST_SHARE) if held_back is None else (VALIDATION_SHARE,)
    validation, *tests, train = (
        learning.take(part) for part in divide(learning.targets, shares, config.seed, classes=classes)
    )
    train = train.take(thin(train.targets, config.limit, config.seed))
    splits = [
        replace(split, images=conformed(split.images, contract, console=console))
        for split in (train, validation, tests[0] if held_back is None else held_back)
    ]
    return _labelled(config, given, classes, contract, splits)


def _decoded(
    config: DataConfig,
    given: tuple[str, ...] | None,
    native: tuple[int, int, int] | None,
    archive: Archive,
    console: Console | None,
) -> ImageDataset:
    """A data set from encoded pictures, in class folders or with a table of labels."""
    contract = contract_for(config, native)
    table = labeltable.find_table(archive)
    layout = labeltable.read_table(archive, table) if table else imagefolder.survey(archive)
    try:
        train, *held_back = _divided(layout, config.seed)
    except DataError as error:
        raise DataError(f"{archive.path}: {error}") from error
    train = train.take(thin(train.targets, config.limit, config.seed))
    splits = []
    for listing in (train, *held_back):
        images, sizes = imagefolder.load(archive, listing.names, contract, console=console)
        splits.append(Split(images, listing.targets, sizes))
    return _labelled(config, given, layout.classes, contract, splits)


def _divided(layout: Layout, seed: int) -> tuple[Listing, ...]:
    """The listings of the training, the validation and the test split."""
    if layout.validation is not None and layout.test is not None:
        return layout.train, layout.validation, layout.test
    shares = (VALIDATION_SHARE, TEST_SHARE) if layout.test is None else (VALIDATION_SHARE,)
    validation, *tests, train = (
        layout.train.take(part) for part in divide(layout.train.targets, shares, seed, classes=layout.classes)
    )
    return train, validation, layout.test or tests[0]


def _labelled(
    config: DataConfig,
    given: tuple[str, ...] | None,
    classes: tuple[str, ...],
    contract: InputContract,
    splits: Sequence[Split],
) -> ImageDataset:
    dataset = ImageDataset(config.dataset, classes, measured(contract, config, splits[0].images), *splits)
    return dataset if given is None else reordered(dataset, given)


def reordered(dataset: ImageDataset, given: tuple[str, ...]) -> ImageDataset:
    """``dataset`` with its labels in another order, or with other names, as `ordered_labels` says.

    Raises:
        DataError: The labels do not fit.
    """
    labels, positions = ordered_labels(dataset.labels, given)
    train, validation, test = (
        replace(split, targets=relabelled(split.targets, positions, len(labels)))
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, labels=labels, train=train, validation=validation, test=test)
