"""Pictures with several labels: the table decides, in whichever order the labels are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.config import DataConfig
from model_export.data import encode_png, load_dataset
from model_export.errors import DataError

COUNT = 20


def has_sea(number: int) -> bool:
    """Its red channel tells."""
    return number % 2 == 1


def has_sand(number: int) -> bool:
    """Its green channel tells."""
    return number % 3 == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures whose channels show what the table says of them."""
    root = tmp_path / "pictures"
    (root / "deeper").mkdir(parents=True)
    lines = ["file,labels"]
    for number in range(COUNT):
        image = np.zeros((6, 6, 3), np.uint8)
        image[..., 0], image[..., 1] = 255 * has_sea(number), 255 * has_sand(number)
        image[..., 2] = number
        name = f"deeper/{number:02}.png"
        (root / name).write_bytes(encode_png(image))
        labels = ["sea"] * has_sea(number) + ["sand"] * has_sand(number)
        lines.append(f"{name},{'; '.join(labels)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "deeper" / "unlisted.png").write_bytes(encode_png(np.zeros((6, 6, 3), np.uint8)))
    return root


def config(folder: Path) -> DataConfig:
    return DataConfig("imagefolder", folder, input=(3, 6, 6))


def test_the_table_becomes_a_matrix_of_targets(folder: Path) -> None:
    dataset = load_dataset(config(folder))
    assert dataset.labels == ("sand", "sea")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert sum(len(split) for split in splits) == COUNT
    for split in splits:
        assert split.targets.shape == (len(split), 2)
        assert (split.targets[:, 0] == (split.images[:, 0, 0, 1] == 255)).all()
        assert (split.targets[:, 1] == (split.images[:, 0, 0, 0] == 255)).all()


def test_a_list_of_labels_orders_the_columns(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("sea\nwood\nsand\n")
    dataset = load_dataset(config(folder), labels=tmp_path / "labels.txt")
    assert dataset.labels == ("sea", "wood", "sand")
    assert (dataset.train.targets[:, 0] == (dataset.train.images[:, 0, 0, 0] == 255)).all()
    assert (dataset.train.targets[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a table in UTF-8"),
        ("name,labels\n", "first line is not file,labels"),
        ("file,labels\ndeeper/00.png\n", "line 2: 1 columns"),
        ("file,labels\ndeeper/00.png,sea\nnone.png,sea\n", r"line 3: no picture none\.png"),
        ("file,labels\ndeeper/00.png,sea\ndeeper/00.png,sand\n", r"line 3: deeper/00\.png is there twice"),
        ("file,labels\ndeeper/00.png,sea\n", r"1 label\(s\)"),
    ],
)
def test_a_bad_table_is_refused_by_its_line(folder: Path, text: str, complaint: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=complaint) as refusal:
        load_dataset(config(folder))
    assert str(folder / "labels.csv") in str(refusal.value)
