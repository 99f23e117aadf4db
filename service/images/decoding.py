"""From bytes to the contract's pixels: reader, colours, orientation, size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.artifact import ColourOrder, InputContract
from service.images import jpeg, plugins, png
from service.images.colours import flatten
from service.images.geometry import Area, area_of, fit, reduction
from service.images.headers import DEFAULT_LIMITS, DecodeLimits, ImageInfo, probe
from service.images.orientation import is_sideways, upright
from service.images.picture import Picture, as_image


def decode(
    data: bytes | memoryview, contract: InputContract, limits: DecodeLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """The picture as the graph wants it: uint8 [H, W, C], contiguous, not always writable.

    Args:
        data: One encoded image; not modified.
        contract: Size, resize rule, interpolation, fill and colour order of the model file.
        limits: Formats and pixels that may be decoded.

    Raises:
        UnsupportedMediaType: A recognised format that is switched off or not known to Foldserve.
        UndecodableImage: Unknown, truncated or corrupt bytes.
        TooManyPixels: More pixels than ``limits.max_pixels``.
        MemoryError: There is not enough now.
    """
    data = bytes(data)  # no copy where it is bytes already
    info = probe(data, limits)
    if info.format == "jpeg":
        return _decode_jpeg(data, info, contract)
    picture = png.read(data) if info.format == "png" else plugins.read(info.format, data)
    pixels = _unless_work_is_left(picture, contract)
    if pixels is not None:
        return pixels
    image = upright(flatten(as_image(picture.pixels), contract), picture.orientation)
    return fit(image, Area(*image.size), contract)


def _decode_jpeg(data: bytes, info: ImageInfo, contract: InputContract) -> NDArray[np.uint8]:
    orientation = jpeg.orientation(data)
    width, height = (info.height, info.width) if is_sideways(orientation) else (info.width, info.height)
    factor = reduction(width, height, contract)
    picture = Picture(jpeg.read(data, contract.channels == 1, factor), orientation)
    pixels = _unless_work_is_left(picture, contract)
    if pixels is not None:
        return pixels
    image = upright(as_image(picture.pixels), orientation)
    return fit(image, area_of(image, width, height, factor, orientation), contract)


def _unless_work_is_left(picture: Picture, contract: InputContract) -> NDArray[np.uint8] | None:
    """The pixels themselves where they have the contract's shape already; the way of most small images."""
    pixels = picture.pixels
    if picture.orientation != 1 or contract.resize_to is not None or isinstance(pixels, Image.Image):
        return None
    if pixels.shape != (contract.height, contract.width, contract.channels):
        return None
    return np.ascontiguousarray(pixels[:, :, ::-1]) if contract.colour_order is ColourOrder.BGR else pixels
