"""The figures that the project promises on well-known data. Minutes of training: ``make acceptance``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model_export import data
from model_export.config import DataConfig
from service.images.geometry import Area, fit, reduction
from tests.e2e.road import export, serve
from tests.service.images.contracts import contract

pytestmark = [pytest.mark.acceptance, pytest.mark.data, pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_mnist_is_read_right_at_99_percent_over_http(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "mnist"
    flags = ("--dataset", "mnist", "--data-dir", str(folder), "--epochs", "10", "--schedule", "cosine")
    exported = export(tmp_path, "mnist", *flags, threads=2)
    dataset = data.load_dataset(DataConfig(dataset="mnist", data_dir=folder))
    with serve(exported.repository) as served:
        probabilities = served.probabilities(dataset.test.images, dataset.labels)
    assert len(dataset.test.images) == 10_000
    assert np.mean(probabilities.argmax(axis=1) == dataset.test.targets) >= 0.990


def test_cifar10_trains_and_serves(data_dir: Path, tmp_path: Path) -> None:
    archive = data_dir / "cifar10" / "cifar10_jpeg_subset.tar"
    exported = export(
        tmp_path, "cifar10", "--dataset", "cifar10", "--data-dir", str(archive), "--epochs", "6", threads=2
    )
    dataset = data.load_dataset(DataConfig(dataset="cifar10", data_dir=archive))
    photos = _reduced_photos(data_dir)
    with serve(exported.repository) as served:
        probabilities = served.probabilities(dataset.test.images, dataset.labels)
        in_small = served.probabilities_of_files([photo for photo, _ in photos], dataset.labels)
        in_full = served.probabilities(np.array([pixels for _, pixels in photos]), dataset.labels)
    # Ten classes: far from guessing. The pictures are lossy, so published figures do not apply.
    assert np.mean(probabilities.argmax(axis=1) == dataset.test.targets) >= 0.5
    _have_the_same_labels(in_small, in_full)


def _reduced_photos(data_dir: Path) -> list[tuple[bytes, NDArray[np.uint8]]]:
    """Photographs that are decoded in small for 32 × 32, and their pixels there when decoded in full."""
    wanted, photos = contract(32, 32), []
    for path in sorted((data_dir / "photos").glob("*.JPEG")):
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        if reduction(*upright.size, wanted) > 1:
            photos.append((path.read_bytes(), fit(upright, Area(*upright.size), wanted)))
    assert len(photos) >= 50
    return photos


def _have_the_same_labels(in_small: NDArray[np.float64], in_full: NDArray[np.float64]) -> None:
    """Decoding in small changes no label, but where two were as good as level."""
    assert np.abs(in_small - in_full).mean() <= 0.01
    second, best = np.sort(in_full, axis=1)[:, -2:].T
    is_clear = best - second > 0.1
    assert is_clear.sum() >= len(in_full) // 2
    assert np.array_equal(in_small.argmax(axis=1)[is_clear], in_full.argmax(axis=1)[is_clear])
