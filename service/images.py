"""How bytes become pixels: one implementation for training, export, self-test and service.

::

    bytes ─ sniff ─▶ header (format, width, height) ─ limits ─▶ decode ─▶ orientation ─▶ colours ─▶ resize
                                                                                         └▶ uint8 [H, W, C]

The bytes decide what an image is, never a declared type. Whatever is wrong ends in exactly one of
three errors: `UnsupportedMediaType` (a format we know and do not take), `TooManyPixels` (from the
header, before a pixel is decoded) and `UndecodableImage` (unknown, truncated or corrupt bytes).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.artifact import ColourOrder, InputContract, Interpolation, Resize
from service.errors import TooManyPixels, UndecodableImage, UnsupportedMediaType

FORMATS: Final = frozenset({"jpeg", "png", "webp", "bmp", "gif", "tiff", "avif"})

_FILTERS: Final = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What may be decoded at all.

    Attributes:
        max_pixels: Width · height that a header may announce; more is refused before decoding.
        formats: Names out of `FORMATS`; another known format is refused by its name.
    """

    max_pixels: int = 50_000_000
    formats: frozenset[str] = FORMATS


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image's header says. Width and height as stored, before EXIF orientation."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width · height."""
        return self.width * self.height


def probe(data: bytes | memoryview, limits: DecodeLimits = DecodeLimits()) -> ImageInfo:
    """What the header says; no pixel is decoded.

    Raises:
        UnsupportedMediaType: A known format that is switched off.
        UndecodableImage: An unknown or corrupt header.
        TooManyPixels: More pixels than ``limits.max_pixels``.
    """
    image = _open(data, limits)
    return ImageInfo(str(image.format).lower(), image.width, image.height)


def decode(
    data: bytes | memoryview,
    contract: InputContract,
    limits: DecodeLimits = DecodeLimits(),
) -> NDArray[np.uint8]:
    """The picture as the graph wants it: uint8 [H, W, C], contiguous.

    Args:
        data: One encoded image; not modified.
        contract: Size, colour order, resize rule and fill of the model file.
        limits: Formats and pixels that may be decoded.

    Raises:
        UnsupportedMediaType: A known format that is switched off.
        UndecodableImage: Unknown, truncated or corrupt bytes.
        TooManyPixels: More pixels than ``limits.max_pixels``.
    """
    image = _open(data, limits)
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        flat = _coloured(upright, contract)
    except (OSError, SyntaxError, ValueError) as exc:
        raise UndecodableImage(f"truncated or corrupt image: {exc}") from exc
    return (
        np.array(_resized(flat, contract), dtype=np.uint8)
        .reshape(contract.height, contract.width, contract.channels)[
            :, :, :: -1 if contract.colour_order is ColourOrder.BGR else 1
        ]
        .copy()
    )


def _open(data: bytes | memoryview, limits: DecodeLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=sorted(FORMATS))
    except Exception as exc:
        raise UndecodableImage("these bytes are no image of a known format") from exc
    if str(image.format).lower() not in limits.formats:
        raise UnsupportedMediaType(f"{image.format} images are not accepted here")
    if image.width * image.height > limits.max_pixels:
        raise TooManyPixels(f"{image.width}x{image.height} pixels exceed the limit of {limits.max_pixels}")
    return image


def _coloured(image: Image.Image, contract: InputContract) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).convert("L")
    if image.has_transparency_data:
        fill = contract.fill * (3 // contract.channels)
        fill = fill[::-1] if contract.colour_order is ColourOrder.BGR else fill
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*fill, 255)), image.convert("RGBA"))
    return image.convert("L" if contract.channels == 1 else "RGB")


def _resized(image: Image.Image, contract: InputContract) -> Image.Image:
    target = (contract.width, contract.height)
    resample = _FILTERS[contract.interpolation]
    if contract.resize is Resize.LETTERBOX:
        fill = contract.fill[::-1] if contract.colour_order is ColourOrder.BGR else contract.fill
        return ImageOps.pad(image, target, resample, color=fill if len(fill) > 1 else fill[0])
    if contract.resize_to is not None:
        scale = contract.resize_to / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), resample)
        left, top = (image.width - target[0]) // 2, (image.height - target[1]) // 2
        return image.crop((left, top, left + target[0], top + target[1]))
    return image if image.size == target else image.resize(target, resample)
