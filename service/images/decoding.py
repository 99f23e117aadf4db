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
    """
    data = bytes(data)  # no copy where it is bytes already
    info = probe(data, limits)
    if info.format == "jpeg":
        return _decode_jpeg(data, info, contract)
    image, orientation = png.read(data) if info.format == "png" else plugins.read(info.format, data)
    image = upright(flatten(image, contract), orientation)
    return fit(image, Area(*image.size), contract)


def _decode_jpeg(data: bytes, info: ImageInfo, contract: InputContract) -> NDArray[np.uint8]:
    orientation = jpeg.orientation(data)
    width, height = (info.height, info.width) if is_sideways(orientation) else (info.width, info.height)
    factor = reduction(width, height, contract)
    pixels = jpeg.read(data, contract.channels == 1, factor)
    as_wanted = (contract.height, contract.width, contract.channels)
    if pixels.shape == as_wanted and orientation == factor == 1 and contract.resize_to is None:
        is_bgr = contract.colour_order is ColourOrder.BGR
        return np.ascontiguousarray(pixels[:, :, ::-1]) if is_bgr else pixels
    image = upright(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), orientation)
    return fit(image, area_of(image, width, height, factor, orientation), contract)
