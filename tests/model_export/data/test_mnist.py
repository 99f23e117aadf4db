"""IDX files: read back as written, and refused by name when something is wrong with them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.config import DataConfig
from model_export.data import load_dataset, mnist
from model_export.errors import DataError


def idx(array: NDArray[np.uint8]) -> bytes:
    """``array`` as an IDX file."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data set in the four files; the test pair is not compressed."""
    generator = np.random.default_rng(0)
    for prefix, size in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            if prefix == "train":
                (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (tmp_path / f"{prefix}-{kind}-ubyte").write_bytes(idx(array))
    return tmp_path


def test_the_four_files_become_three_splits(folder: Path) -> None:
    dataset = load_dataset(DataConfig("mnist", folder))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (50, 10, 20)
    assert dataset.test.targets.tolist() == [*range(10), *range(10)]
    raw = (folder / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert dataset.test.images.tobytes() == raw
    assert dataset.labels == tuple("0123456789")
    assert dataset.contract.channels == 1


@pytest.mark.data
def test_the_real_files(data_dir: Path) -> None:
    train, test = mnist.read(data_dir / "mnist")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.images.mean() == pytest.approx(0.1306604762738429 * 255)  # the published mean


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte\.gz; --data-dir"):
        mnist.read(folder)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t10k-labels-idx1-ubyte", b"<html>", "no IDX file of 1 dimension.*begins with 3c68746d"),
        ("t10k-labels-idx1-ubyte", bytes((0, 0, 8, 1, 0)), "no IDX file"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((2, 2), np.uint8)), "no IDX file"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(20, np.uint8))[:-1], "20 bytes, has 19"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(19, np.uint8)), "20 pictures, but 19 labels"),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 10, np.uint8)), "label 10"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((20, 8, 8), np.uint8)), "8x8, not 28x28"),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8bgarbage", "damaged gzip"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes, complaint: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as refusal:
        mnist.read(folder)
    assert str(folder / name) in str(refusal.value)
