"""Folders of pictures: which layout gives which splits, which labels which logits, and the refusals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from model_export.config import DataConfig
from model_export.data import encode_png, load_dataset, load_pictures
from model_export.errors import DataError, InvalidConfig

SHAPE = (3, 8, 8)
CLASSES = ("ant", "bee")


def brightness(name: str) -> int:
    """What tells the pictures of a class from others."""
    return 40 if "ant" in name else 200


def fill(root: Path, folders: Iterable[str], count: int = 10) -> Path:
    """``count`` noisy pictures of 10×12 in each of ``folders``."""
    generator = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            noise = generator.integers(-20, 20, (10, 12, 3))
            image = (brightness(folder) + noise).astype(np.uint8)
            (root / folder / f"{number:02}.png").write_bytes(encode_png(image))
    return root


def config(root: Path, **changes: object) -> DataConfig:
    return DataConfig("imagefolder", root, **({"input": SHAPE} | changes))  # type: ignore[arg-type]  # test data


@pytest.mark.parametrize(
    ("folders", "sizes"),
    [
        (CLASSES, (14, 2, 4)),
        ([f"around/it/{name}" for name in CLASSES], (14, 2, 4)),
        ([f"{split}/{name}" for split in ("train", "test") for name in CLASSES], (18, 2, 20)),
        ([f"{split}/{name}" for split in ("train", "val") for name in CLASSES], (18, 2, 20)),
        ([f"x/{split}/{name}" for split in ("train", "val", "test") for name in CLASSES], (20, 20, 20)),
        ([f"Training/{name}/{deeper}" for name in CLASSES for deeper in "ab"], (28, 4, 8)),
    ],
)
def test_layouts(tmp_path: Path, folders: list[str], sizes: tuple[int, ...]) -> None:
    dataset = load_dataset(config(fill(tmp_path, folders)))
    splits = (dataset.train, dataset.validation, dataset.test)
    assert tuple(len(split) for split in splits) == sizes
    assert dataset.labels == CLASSES
    for split in splits:
        bright = split.images.mean(axis=(1, 2, 3)) > 128
        assert (bright == (split.targets == 1)).all()
        assert split.sizes is not None
        np.testing.assert_allclose(split.sizes, np.sqrt(10 * 12))


def test_a_folder_of_val_only_is_held_back(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"{split}/{name}" for split in ("train", "val") for name in CLASSES])
    (root / "val/ant/00.png").write_bytes(encode_png(np.zeros((10, 12, 3), np.uint8)))
    dataset = load_dataset(config(root))
    assert [
        (split.images.max(axis=(1, 2, 3)) == 0).any() for split in (dataset.validation, dataset.test)
    ] == [
        False,
        True,
    ]


def test_the_seed_decides_the_division(tmp_path: Path) -> None:
    root = fill(tmp_path, CLASSES)
    first, again, other = (load_dataset(config(root, seed=seed)).test.images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_limit_thins_only_the_training_split(tmp_path: Path) -> None:
    dataset = load_dataset(config(fill(tmp_path, CLASSES), limit=5))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (5, 2, 4)


def test_pictures_without_labels_are_read_from_any_depth(tmp_path: Path) -> None:
    dataset = load_dataset(config(fill(tmp_path, CLASSES, count=5)))
    pictures = load_pictures(tmp_path, dataset.contract)
    splits = (dataset.train, dataset.validation, dataset.test)
    known = {image.tobytes() for split in splits for image in split.images}
    assert {image.tobytes() for image in pictures} == known
    with pytest.raises(DataError, match="nowhere: no such file"):
        load_pictures(tmp_path / "nowhere", dataset.contract)


def test_a_list_of_labels_decides_their_order(tmp_path: Path) -> None:
    root = fill(tmp_path / "pictures", CLASSES)
    labels = tmp_path / "labels.txt"
    labels.write_text("cow\nbee\nant\n\n")
    dataset = load_dataset(config(root), labels=labels)
    assert dataset.labels == ("cow", "bee", "ant")
    assert set(dataset.test.targets) == {1, 2}
    assert ((dataset.test.images.mean(axis=(1, 2, 3)) > 128) == (dataset.test.targets == 1)).all()


def test_a_list_of_other_names_renames(tmp_path: Path) -> None:
    root = fill(tmp_path / "pictures", CLASSES)
    labels = tmp_path / "labels.txt"
    labels.write_text("Formicidae\nApis mellifera\n")
    dataset = load_dataset(config(root), labels=labels)
    assert dataset.labels == ("Formicidae", "Apis mellifera")
    assert ((dataset.test.images.mean(axis=(1, 2, 3)) > 128) == (dataset.test.targets == 1)).all()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ant\n", r"1 label\(s\)"),
        ("ant\n\nbee\n", "line 2: an empty label"),
        ("ant\nbee\nant\n", "line 3: 'ant' is there twice"),
        ("ant\ncow\npig\n", "3 labels for 2 classes, and no 'bee'"),
    ],
)
def test_a_bad_list_of_labels_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text(text)
    with pytest.raises(DataError, match=complaint):
        load_dataset(config(fill(tmp_path / "pictures", CLASSES)), labels=labels)


def test_a_missing_list_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.txt: cannot be read"):
        load_dataset(config(fill(tmp_path / "pictures", CLASSES)), labels=tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("folders", "stray", "complaint"),
    [
        ([], None, "no pictures"),
        (["ant"], None, "a single class, 'ant'"),
        (CLASSES, "stray.png", r"stray\.png: lies outside any class folder"),
        (["train/ant", "train/bee"], "other/stray.png", r"stray\.png: lies outside the folders train"),
        (["val/ant", "test/ant"], None, "no folder 'train'"),
        (["train/ant", "train/bee", "test/cow"], None, "class 'cow' is held back"),
        (CLASSES, "elk/notes.txt", "elk: a class folder without pictures; add some, or remove it"),
        (["train/ant", "train/bee"], "train/elk/notes.txt", "train/elk: a class folder without"),
    ],
)
def test_an_impossible_layout_is_refused(
    tmp_path: Path, folders: list[str], stray: str | None, complaint: str
) -> None:
    fill(tmp_path, folders)
    if stray:
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_bytes(encode_png(np.zeros((10, 12, 3), np.uint8)))
    with pytest.raises(DataError, match=complaint):
        load_dataset(config(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no picture", "truncated"])
def test_a_corrupt_picture_is_named(tmp_path: Path, content: bytes | str) -> None:
    root = fill(tmp_path, CLASSES)
    picture = root / "bee/03.png"
    picture.write_bytes(picture.read_bytes()[:-60] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"bee/03\.png"):
        load_dataset(config(root))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input": None}, "say --input"),
        ({"input": (1, 8, 8), "channels": "rgb"}, "^--channels rgb does not have 1"),
        ({"input": (2, 8, 8)}, "--input 2x8x8: channels: Input should be 1 or 3"),
        ({"input": (3, 5000, 8)}, "--input 3x5000x8: height: .*4096"),
        ({"resize": "shorter_side", "resize_to": 9000}, "--resize-to 9000: .*8192"),
        ({"limit": 0}, "--limit 0: must be at least 1"),
        ({"mean": (0.1, math.nan, 0.1)}, "--mean 0.1,nan,0.1: each must be a finite number"),
        ({"std": (0.1, 0.0, 0.1)}, "--std 0.1,0,0.1: each must be a finite number above zero"),
        ({"dataset": "digits"}, "for the digits there is none; say which --dataset"),
        ({"resize": "shorter_side"}, "^--resize-to belongs to --resize shorter_side"),
        ({"mean": (0.5, 0.5)}, "^--mean must have 3"),
        ({"data_dir": None}, "needs --data-dir"),
    ],
)
def test_contradicting_flags_are_refused(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    root = fill(tmp_path, CLASSES)
    with pytest.raises(InvalidConfig, match=complaint):
        load_dataset(DataConfig(**({"dataset": "imagefolder", "data_dir": root, "input": SHAPE} | changes)))  # type: ignore[arg-type]  # wrong on purpose


def test_one_mean_stands_for_all_channels(tmp_path: Path) -> None:
    given = load_dataset(config(fill(tmp_path, CLASSES), mean=(0.1,), std=(0.4,))).contract
    assert (given.mean, given.std) == ((0.1,) * 3, (0.4,) * 3)


def test_given_mean_and_std_stand(tmp_path: Path) -> None:
    root = fill(tmp_path, CLASSES)
    given = load_dataset(config(root, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))).contract
    assert (given.mean, given.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    measured = load_dataset(config(root))
    pixels = measured.train.images.reshape(-1, 3) / 255
    np.testing.assert_allclose(measured.contract.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(measured.contract.std, pixels.std(axis=0))


def test_a_channel_without_variation_is_refused(tmp_path: Path) -> None:
    for folder in CLASSES:
        (tmp_path / folder).mkdir()
        for number in range(5):
            (tmp_path / folder / f"{number}.png").write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(DataError, match="same value in every pixel"):
        load_dataset(config(tmp_path))
