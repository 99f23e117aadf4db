"""CIFAR-10's three forms hold the same pictures; each refusal names its file."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.config import DataConfig
from model_export.data import ImageDataset, cifar10, encode_png, load_dataset
from model_export.data.archive import Archive
from model_export.errors import DataError

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
PER_BATCH = 20

Pictures = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """[20, 32, 32, 3] pictures and [20] labels a batch."""
    generator = np.random.default_rng(0)
    return {
        batch: (
            generator.integers(0, 256, (PER_BATCH, 32, 32, 3), dtype=np.uint8),
            np.arange(PER_BATCH) % 10,
        )
        for batch in BATCHES
    }


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N, 3072]: red, green and blue one after the other."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_binary(pictures: Pictures, folder: Path) -> Path:
    root = folder / "cifar-10-batches-bin"
    root.mkdir()
    for batch, (images, labels) in pictures.items():
        records = np.hstack([labels[:, None].astype(np.uint8), planes(images)])
        (root / f"{batch}.bin").write_bytes(records.tobytes())
    return folder


def write_pickles(pictures: Pictures, folder: Path) -> Path:
    root = folder / "cifar-10-batches-py"
    root.mkdir()
    for batch, (images, labels) in pictures.items():
        content = {b"data": planes(images), b"labels": labels.tolist(), b"batch_label": b"a batch"}
        (root / batch).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def write_folders(pictures: Pictures, folder: Path) -> Path:
    for batch, (images, labels) in pictures.items():
        split = "test" if batch == "test_batch" else "train"
        for position, (image, label) in enumerate(zip(images, labels, strict=True)):
            target = folder / "cifar10" / split / cifar10.LABELS[label] / f"{batch}-{position:02}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encode_png(image))
    return folder


def as_tar(write: Callable[[Pictures, Path], Path]) -> Callable[[Pictures, Path], Path]:
    """The same form, in a compressed tar file that lies alone in a folder."""

    def packed(pictures: Pictures, folder: Path) -> Path:
        plain = folder / "plain"
        plain.mkdir()
        write(pictures, plain)
        alone = folder / "alone"
        alone.mkdir()
        with tarfile.open(alone / "cifar.tar.gz", "w:gz") as tar:
            tar.add(plain, arcname=".")
        return alone

    return packed


def content(dataset: ImageDataset) -> set[tuple[str, int, bytes]]:
    """Everything that is in it, whatever the order."""
    return {
        ("test" if name == "test" else "learning", int(target), image.tobytes())
        for name in ("train", "validation", "test")
        for image, target in zip(
            dataset.split(name).images,
            dataset.split(name).targets,
            strict=True,
        )
    }


@pytest.mark.parametrize(
    "write",
    [write_binary, write_pickles, write_folders, as_tar(write_binary), as_tar(write_folders)],
    ids=["binary", "python", "folders", "binary.tar.gz", "folders.tar.gz"],
)
def test_every_form_holds_the_same_pictures(
    pictures: Pictures, tmp_path: Path, write: Callable[[Pictures, Path], Path]
) -> None:
    dataset = load_dataset(DataConfig("cifar10", write(pictures, tmp_path)))
    expected = {
        ("test" if batch == "test_batch" else "learning", int(label), image.tobytes())
        for batch, (images, labels) in pictures.items()
        for image, label in zip(images, labels, strict=True)
    }
    assert content(dataset) == expected
    assert dataset.labels == cifar10.LABELS
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (90, 10, 20)


def refusal(folder: Path) -> str:
    with Archive(folder) as archive, pytest.raises(DataError) as raised:
        cifar10.read(archive)
    return str(raised.value)


def test_a_missing_batch_is_named(pictures: Pictures, tmp_path: Path) -> None:
    (write_binary(pictures, tmp_path) / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    assert "no data_batch_3 or data_batch_3.bin" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(lambda data: data[:-1], "no whole number"), (lambda data: b"\x0a" + data[1:], "labels are not within")],
)
def test_a_damaged_binary_batch_is_named(
    pictures: Pictures, tmp_path: Path, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    batch = write_binary(pictures, tmp_path) / "cifar-10-batches-bin/test_batch.bin"
    batch.write_bytes(damage(batch.read_bytes()))
    message = refusal(tmp_path)
    assert complaint in message
    assert str(batch) in message


class Intruder:
    """Pickles into a call of `print`."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (Intruder(), "print has no place in it"),
        ({b"data": b"", b"labels": [1]}, "no CIFAR-10 batch"),
        ({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}, "pixels of shape (2, 3) for 2 labels"),
        ([1, 2], "no CIFAR-10 batch"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(
    pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: object, complaint: str
) -> None:
    file = write_pickles(pictures, tmp_path) / "cifar-10-batches-py/test_batch"
    file.write_bytes(pickle.dumps(batch, protocol=2))
    assert complaint in refusal(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_truncated_tar_is_named(pictures: Pictures, tmp_path: Path) -> None:
    folder = as_tar(write_binary)(pictures, tmp_path)
    whole = (folder / "cifar.tar.gz").read_bytes()
    (folder / "cifar.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cifar\.tar\.gz"):
        load_dataset(DataConfig("cifar10", folder / "cifar.tar.gz"))


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.tar").write_text("no tar file")
    with pytest.raises(DataError, match=r"notes\.tar: neither a folder nor a tar file"):
        Archive(tmp_path / "notes.tar")
    with pytest.raises(DataError, match="no such file or folder"):
        Archive(tmp_path / "nothing")


def test_a_hidden_file_is_no_picture(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("./a/._1.png", "__MACOSX/a/1.png", "a/1.png"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with Archive(tmp_path / "a.tar") as archive:
        assert archive.names == ("a/1.png",)


@pytest.mark.data
def test_the_real_subset(data_dir: Path) -> None:
    dataset = load_dataset(DataConfig("cifar10", data_dir / "cifar10", limit=50))
    assert dataset.labels == cifar10.LABELS
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (50, 2000, 2000)
    assert np.bincount(dataset.test.targets).tolist() == [200] * 10
