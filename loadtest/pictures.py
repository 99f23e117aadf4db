"""The pictures that a load test sends: a folder of them, or the digits that scikit-learn carries."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

# From an icon to a camera's picture; each four times the last, so that decoding takes sixteen times as long.
SIDES = (32, 128, 512, 2048)
OF_EACH_SIDE = 8
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}


class NoPictures(Exception):
    """A folder without a picture that could be sent."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One encoded image.

    Attributes:
        data: The file's bytes, as they are sent.
        media_type: ``image/…``.
        label: What a good model says it is; None where nobody knows.
        size: Of its longer side, in words; empty where a run does not tell sizes apart.
    """

    data: bytes
    media_type: str
    label: str | None
    size: str = ""


def load(folder: Path | None) -> tuple[Picture, ...]:
    """The pictures in ``folder`` and below it, in the order of their paths; None: the digits.

    Raises:
        NoPictures: There is none.
    """
    return digits() if folder is None else _in_folder(folder)


def in_sizes(pictures: Sequence[Picture], seed: int) -> tuple[Picture, ...]:
    """Some of the pictures, each with every one of `SIDES` as its longer side, in its own format."""
    chosen = random.Random(seed).sample(pictures, min(OF_EACH_SIDE, len(pictures)))
    return tuple(_resized(picture, side) for side in SIDES for picture in chosen)


def _resized(picture: Picture, side: int) -> Picture:
    with Image.open(io.BytesIO(picture.data)) as image:
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        buffer = io.BytesIO()
        image.resize((width, height)).save(buffer, image.format)
    return replace(picture, data=buffer.getvalue(), size=f"{side} px")


def digits() -> tuple[Picture, ...]:
    """The 1,797 handwritten digits of scikit-learn as PNG, 8 × 8 gray."""
    from sklearn.datasets import load_digits  # slow to import, and not needed for a folder

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype("uint8")  # 16: all of a 4 × 4 block is ink
    return tuple(
        Picture(_png(image), "image/png", str(target))
        for image, target in zip(pixels, bunch.target, strict=True)
    )


def _png(pixels: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")  # type: ignore[arg-type]  # sklearn has no types
    return buffer.getvalue()


def _in_folder(folder: Path) -> tuple[Picture, ...]:
    pictures = tuple(
        Picture(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()], None)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in MEDIA_TYPES
    )
    if not pictures:
        raise NoPictures(f"{folder}: no picture ({', '.join(MEDIA_TYPES)}) in it or below it")
    return pictures
