"""The default data set, and what any data set in memory can be turned into."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from model_export.config import DataConfig
from model_export.data import ImageDataset, Split, encode_png, load_dataset
from model_export.errors import DataError
from service.images import decode


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig())


def test_the_digits_are_divided_seeded_and_complete(digits: ImageDataset) -> None:
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1259, 179, 359)
    assert digits.input_shape == (1, 8, 8)
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 255
    again = load_dataset(DataConfig())
    assert np.array_equal(again.test.images, digits.test.images)


def test_every_picture_survives_encoding(digits: ImageDataset) -> None:
    for image in digits.test.images[:20]:
        assert np.array_equal(decode(encode_png(image), digits.contract), image)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_another_input_takes_the_decode_path_of_the_service(digits: ImageDataset, channels: str) -> None:
    shown = io.StringIO()
    config = DataConfig(input=(3, 12, 10), channels=channels)  # type: ignore[arg-type]  # parametrized
    larger = load_dataset(config, console=Console(file=shown, force_terminal=True, width=100))
    assert "resizing" in shown.getvalue()
    assert larger.test.images.shape == (359, 12, 10, 3)
    assert np.array_equal(larger.test.targets, digits.test.targets)
    expected = decode(encode_png(digits.test.images[0]), larger.contract)
    assert np.array_equal(larger.test.images[0], expected)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Split(np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int64)), "no pictures"),
        (Split(np.zeros((2, 8, 9, 1), np.uint8), np.zeros(2, np.int64)), r"shape \(8, 9, 1\)"),
        (Split(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, np.int64)), "2 pictures, 3 targets"),
        (Split(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 10])), "targets reach 10"),
        (Split(np.zeros((1, 8, 8, 1), np.uint8), np.full((1, 10), 2)), "targets reach 2"),
    ],
)
def test_a_split_that_breaks_the_contract_is_refused(
    digits: ImageDataset, broken: Split, complaint: str
) -> None:
    with pytest.raises(DataError, match=f"digits, test split: .*{complaint}"):
        replace(digits, test=broken)
