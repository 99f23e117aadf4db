"""What is served and sent: a model file, pictures, and the class that each picture has.

::

    small            article_cnn on scikit-learn's digits, drawn at 28 × 28, PNG
    resnet18         ResNet-18 at 224 × 224, JPEG photos of about 500 × 375
    resnet18_int8    the same photos; weights and activations in int8
    photos           article_cnn at 28 × 28, JPEG photos of 2,400 × 1,600

The networks are trained just enough to have statistics; what is measured is speed. Photos are drawn
(clouds of noise on every scale compress like a photograph) unless a folder of real ones is given.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pictures import describe
from benchmarks.serving.answers import Answer
from benchmarks.serving.classifier import Classifier
from loadtest import pictures
from loadtest.pictures import NoPictures, Picture
from service.artifact import Precision

NAMES = ("small", "resnet18", "resnet18_int8", "photos")
_NETWORKS = {
    "small": "The article's small CNN at 28 × 28, gray, float32",
    "resnet18": "ResNet-18 at 224 × 224, float32",
    "resnet18_int8": "ResNet-18 at 224 × 224, int8",
    "photos": "The article's small CNN at 28 × 28, in colour, float32",
}
CLASSES = 4
PHOTOS = 16


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and what is sent to it.

    Attributes:
        model: The file, in a repository of its own.
        pictures: What is sent, in turn.
        expected: The answer to each picture: that of the plain Pillow-and-ONNX-Runtime classifier, which
            never sees two at once.
        about: Network and pictures, in a sentence each.
    """

    name: str
    model: Path
    pictures: tuple[Picture, ...]
    expected: tuple[Answer, ...]
    about: str

    @property
    def precision(self) -> Precision:
        """Of the model file."""
        return next(each for each in Precision if each.file_name == self.model.name)


def prepare(name: str, folder: Path, photos: Path | None = None) -> Workload:
    """The workload, with its model made in ``folder`` unless it is there.

    Args:
        photos: Folder of real JPEG photographs for ``resnet18`` and ``photos``; None: drawn ones.

    Raises:
        NoPictures: There is none in the folder.
    """
    sent = _pictures(name, photos)
    precision = Precision.INT8 if name.endswith("int8") else Precision.FP32
    model = folder / "models" / name / "1" / precision.file_name
    if not model.exists():
        _make_model(name, precision, folder, sent)
    seen = describe([picture.data for picture in sent])
    about = f"{_NETWORKS[name]}. {seen}: {_kind(name, photos)}."
    return Workload(name, model, sent, answers(model, sent), about)


def _kind(name: str, photos: Path | None) -> str:
    """What the pictures are."""
    if name == "small":
        return "scikit-learn's digits"
    return "drawn noise that costs what photographs cost" if photos is None else "photographs"


def answers(model: Path, sent: Sequence[Picture]) -> tuple[Answer, ...]:
    """What the plain classifier says to each picture alone."""
    classifier = Classifier(model)
    return tuple(
        Answer(int(said["index"]), said["probability"])
        for picture in sent
        for said in classifier.classify([picture.data])
    )


def draw_photo(width: int, height: int, seed: int) -> bytes:
    """A JPEG that costs what a photograph of its size costs: noise on every scale.

    Returns:
        About 0.6 bytes a pixel.
    """
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        side = 2**octave
        noise = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        canvas += np.asarray(layer, np.float32) / 2**octave
    canvas += rng.normal(0, 22, canvas.shape).astype(np.float32)
    return _encoded(canvas.clip(0, 255).astype(np.uint8), "JPEG")


def _pictures(name: str, photos: Path | None) -> tuple[Picture, ...]:
    if name == "small":
        return tuple(Picture(_enlarged(p.data), "image/png", p.label) for p in pictures.digits()[:64])
    if photos is not None:
        found = tuple(p for p in pictures.load(photos) if p.media_type == "image/jpeg")
        if not found:
            raise NoPictures(f"no JPEG photograph in '{photos}'")
        return found
    width, height = (500, 375) if _is_resnet(name) else (2400, 1600)
    return tuple(Picture(draw_photo(width, height, seed), "image/jpeg", None) for seed in range(PHOTOS))


def _is_resnet(name: str) -> bool:
    return name.startswith("resnet18")


def _make_model(name: str, precision: Precision, folder: Path, sent: Sequence[Picture]) -> None:
    architecture = "resnet18" if _is_resnet(name) else "article_cnn"
    flags = ["--architecture", architecture, "--epochs", "1"]
    if name == "small":
        flags += ["--dataset", "digits", "--input", "1x28x28"]
    else:
        size = "3x224x224" if _is_resnet(name) else "3x28x28"
        flags += [
            "--dataset",
            "imagefolder",
            "--data-dir",
            str(_labelled(folder / name, sent)),
            "--input",
            size,
        ]
    if precision is not Precision.FP32:  # the classes are made up, and so is their accuracy
        flags += ["--precisions", precision.value, "--max-accuracy-drop", "100"]
    command = [sys.executable, "-m", "model_export", "run", "--name", name]
    command += ["--repository", str(folder / "models"), "--workdir", str(folder / "runs" / name)]
    subprocess.run([*command, *flags], check=True)


def _labelled(folder: Path, sent: Sequence[Picture]) -> Path:
    """The pictures as a data set with made-up classes."""
    for position, picture in enumerate([*sent] * 4):
        path = folder / str(position % CLASSES) / f"{position}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.data)
    return folder


def _enlarged(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return _encoded(np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC)), "PNG")


def _encoded(pixels: NDArray[np.uint8], file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, quality=90)
    return buffer.getvalue()
