"""The figures that the project promises on well-known data. Minutes of training: ``make acceptance``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export import data
from model_export.config import DataConfig
from tests.e2e.road import export, serve

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
    with serve(exported.repository) as served:
        probabilities = served.probabilities(dataset.test.images, dataset.labels)
    # Ten classes: far from guessing. The pictures are lossy, so published figures do not apply.
    assert np.mean(probabilities.argmax(axis=1) == dataset.test.targets) >= 0.5
